// Owns: which language a file is written in. Must never guess from the content.
import { extensionOf } from "../definitions";
import type { Language } from "./language";
import { c, cpp } from "./languages/c";
import { csharp } from "./languages/csharp";
import { go } from "./languages/go";
import { java } from "./languages/java";
import { php } from "./languages/php";
import { python } from "./languages/python";
import { ruby } from "./languages/ruby";
import { rust } from "./languages/rust";
import { javascript, tsx, typescript } from "./languages/typescript";

export const languages: readonly Language[] = [
  typescript,
  tsx,
  javascript,
  python,
  go,
  rust,
  c,
  cpp,
  java,
  csharp,
  ruby,
  php,
];

const byExtension = new Map(
  languages.flatMap((language) => language.extensions.map((extension) => [extension, language] as const)),
);

export function languageOf(path: string): Language | undefined {
  return byExtension.get(extensionOf(path));
}

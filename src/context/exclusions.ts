// Owns: which files are left out because of what they are called or what they hold, and why. Must never read anything itself.
import type { DropReason } from "../protocol/qa";

export const fileLimitBytes = 256 * 1024;

/**
 * Left out even where no ignore file says so, in the syntax of .gitignore. They come first, so that a `!` line of the
 * repository's own ignore files takes one back.
 */
export const defaultIgnoreRules = `
node_modules/
bower_components/
jspm_packages/
.hg/
.svn/
.jj/
.venv/
venv/
__pycache__/
.mypy_cache/
.pytest_cache/
.ruff_cache/
.tox/
.nox/
.eggs/
*.egg-info/
site-packages/
.gradle/
.idea/
.vs/
.cache/
.parcel-cache/
.turbo/
.next/
.nuxt/
.svelte-kit/
.yarn/
.pnpm-store/
.terraform/
.nyc_output/
.vscode-test/
.DS_Store
coverage/
dist/
vendor/
third_party/
Pods/
DerivedData/
*.pyc
*.o
*.obj
*.class
`;

const binaryExtensions = new Set(
  (
    "7z a aac ai apk avi avif bin blend bmp br bz2 cab cer class crx dat db dbf der dex dll dmg doc docx dylib ear eot exe " +
    "fbx flac flv gguf gif glb gz h5 heic icns ico ipa iso jar jp2 jpeg jpg lib lz4 lzma m4a m4v mdb mid mkv mov mp3 mp4 " +
    "mpeg mpg msi node npy npz o obj odp ods odt ogg ogv onnx opus otf parquet pb pdb pdf phar pickle pkl png ppt pptx psd " +
    "pt pth pyc pyd rar rlib rpm safetensors snappy so sqlite sqlite3 swf tar tflite tgz tif tiff ttc ttf vsix war wasm wav " +
    "webm webp wmv woff woff2 xls xlsx xz z zip zst"
  ).split(" "),
);

const lockFiles = new Set([
  "package-lock.json",
  "npm-shrinkwrap.json",
  "yarn.lock",
  "pnpm-lock.yaml",
  "bun.lock",
  "bun.lockb",
  "deno.lock",
  "cargo.lock",
  "poetry.lock",
  "pipfile.lock",
  "uv.lock",
  "pdm.lock",
  "composer.lock",
  "gemfile.lock",
  "go.sum",
  "go.work.sum",
  "flake.lock",
  "mix.lock",
  "pubspec.lock",
  "podfile.lock",
  "package.resolved",
  "packages.lock.json",
  "gradle.lockfile",
  ".terraform.lock.hcl",
  "conan.lock",
]);

const secretNames = [
  /^\.env(?:\..+)?$/,
  /\.(?:pem|key|p12|pfx|jks|keystore|kdbx|ppk|tfstate|tfvars|ovpn|gpg|asc)$/,
  /^id_(?:rsa|dsa|ecdsa|ed25519)/,
  /^\.(?:netrc|pgpass|htpasswd|git-credentials|dockercfg|npmrc|pypirc|s3cfg|boto)$/,
  /^_netrc$/,
  /^(?:aws|gcloud|azure)?[._-]?credentials(?:\.(?:json|ya?ml|ini|toml|csv|xml|txt))?$/,
  /^(?:client|app|user)?[._-]?secrets?\.(?:json|ya?ml|ini|toml|env|properties|txt)$/,
  /^service[._-]?account.*\.json$/,
];
const harmlessEnvironment = /^\.env\.(?:example|sample|template|dist|defaults?|schema)$/;

const generatedNames =
  /(?:\.map|\.snap|\.pb\.(?:go|cc|h)|_pb2(?:_grpc)?\.pyi?|\.g\.dart|\.freezed\.dart|\.designer\.cs|\.tsbuildinfo)$/;
const minifiedNames = /[.-]min\.(?:js|mjs|cjs|css|html|json)$/;

/** Decides by the name alone; null: the content decides. */
export function excludedByName(path: string): DropReason | null {
  const name = path.slice(path.lastIndexOf("/") + 1).toLowerCase();
  if (secretNames.some((pattern) => pattern.test(name)) && !harmlessEnvironment.test(name)) return "secret";
  if (lockFiles.has(name)) return "lock-file";
  if (minifiedNames.test(name)) return "minified";
  if (generatedNames.test(name) || /(?:^|\/)__snapshots__\//.test(path)) return "generated";
  const dot = name.lastIndexOf(".");
  if (dot > 0 && binaryExtensions.has(name.slice(dot + 1))) return "binary";
  return null;
}

/** A header alone is often source that looks for keys; a header with a key's first characters after it is a key. */
const privateKey =
  /-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:\\r|\\n|\s|"|\+|,)+[A-Za-z0-9+/=:, .()-]{32}/;
const accessTokens =
  /\b(?:AKIA|ASIA)(?![A-Z0-9]*EXAMPLE)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_[A-Za-z0-9_]{60,}|\bglpat-[A-Za-z0-9_-]{20}\b|\bxox[abprs]-[0-9]{8,}-[A-Za-z0-9-]{16,}|\bsk_live_[A-Za-z0-9]{24,}|\bnpm_[A-Za-z0-9]{36}\b/;

const prose = /\.(?:md|mdx|markdown|txt|rst|adoc|tex|html?)$/i;
const longLineCharacters = 500;
const longestLineCharacters = 2_000;

const generatedMarks = [
  /(?:^|\s)@generated\b/i,
  /\bcode generated\b.{0,200}\bdo not edit\b/i,
  /\b(?:this|the following) (?:file|code|module|source|header|script)\b[^.]{0,60}\b(?:auto[- ]?)?generated\b(?! (?:if|when|unless))/i,
  /\b(?:automatically|auto|machine)[- ]?generated (?:file|code|by|from|with|using|on|at)\b/i,
  /\bgenerated\b.{0,200}\bdo not (?:edit|modify|change)\b|\bdo not (?:edit|modify|change)\b.{0,200}\bgenerated\b/i,
];
const commentLine = /^\s*(?:\/\/|\/\*|\*|#|<!--|--|;|%|\(\*|"""|''')/;
const headLines = 12;

/** Decides by the content; null: the file can be read. */
export function excludedByContent(path: string, text: string): DropReason | null {
  if (privateKey.test(text) || accessTokens.test(text)) return "secret";
  if (isGenerated(text)) return "generated";
  if (!prose.test(path) && isMinified(text)) return "minified";
  return null;
}

/** The comments of the first lines as one text: the marks are often broken over two of them. */
function isGenerated(text: string): boolean {
  const comments: string[] = [];
  let start = 0;
  for (let line = 0; line < headLines && start < text.length; line++) {
    const newline = text.indexOf("\n", start);
    const end = newline < 0 ? text.length : newline;
    const content = text.slice(start, Math.min(end, start + 400));
    if (commentLine.test(content)) comments.push(content.trim());
    start = end + 1;
  }
  const head = comments.join(" ");
  return generatedMarks.some((mark) => mark.test(head));
}

/** Machine-packed text: one line that nobody wrote by hand, and most characters in such lines. */
function isMinified(text: string): boolean {
  let longest = 0;
  let inLongLines = 0;
  let start = 0;
  while (start <= text.length) {
    const newline = text.indexOf("\n", start);
    const end = newline < 0 ? text.length : newline;
    const length = end - start;
    if (length > longest) longest = length;
    if (length > longLineCharacters) inLongLines += length;
    start = end + 1;
  }
  return longest > longestLineCharacters && inLongLines * 2 > text.length;
}

// Owns: the text of ThirdPartyNotices.txt: what others made and a bundle or the addon holds, with its licence. Fails
// on a licence that nobody has looked at. Must never list what is not shipped.
import fs from "node:fs";
import path from "node:path";
import { at } from "./paths.mjs";
import { bundleMetafile } from "./bundle.mjs";
import { grammarNotices, grammarPackages } from "./grammars.mjs";
import { Explained } from "./process.mjs";

/** Licences that allow shipping inside an MIT-licensed package when their text goes along. */
const acceptedLicences = [
  "MIT",
  "ISC",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "0BSD",
  "Apache-2.0",
  "(MPL-2.0 OR Apache-2.0)",
];

/** Header-only packages that are compiled into the addon. */
const compiledIn = ["node_modules/node-addon-api", "node_modules/node-api-headers"];

function packageFolders() {
  const folders = new Set([...compiledIn, ...grammarPackages]);
  for (const file of JSON.parse(fs.readFileSync(bundleMetafile, "utf8"))) {
    const match = /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file);
    if (match) folders.add(match[0]);
  }
  return [...folders].sort();
}

/** Data that was generated into our sources. */
const unicodeTables = () =>
  `Unicode character data (Unicode-3.0), as tables of the tokenizer\n\n${fs.readFileSync(at("docs", "licences", "Unicode-3.0.txt"), "utf8")}`;

/** A part of the GPU backend's library, which its licence allows to be passed on inside an application. */
const cudaRuntime = () =>
  "NVIDIA CUDA runtime (NVIDIA's licence), linked statically into libringside_cuda.so\n\n" +
  "Copyright (c) NVIDIA Corporation and affiliates. All rights reserved. Distributed under the End User License Agreement\n" +
  "of the CUDA Toolkit, https://docs.nvidia.com/cuda/eula/, as a part of this application and for use with it alone.\n";

const authorOf = (manifest) =>
  (typeof manifest.author === "string" ? manifest.author : manifest.author?.name) ?? "its authors";

function licenceText(folder, manifest) {
  const names = fs.readdirSync(at(folder)).filter((name) => /^(licen[cs]e|copying|notice)/i.test(name));
  if (names.length > 0) {
    return names
      .sort()
      .map((name) => fs.readFileSync(at(folder, name), "utf8").trim())
      .join("\n\n");
  }
  if (manifest.license !== "MIT") {
    throw new Explained(`${folder}: no licence file, and the licence is ${manifest.license}, not MIT.`);
  }
  // The package declares MIT without a copy of it: the standard text, under its author's name.
  return mitLicence(`Copyright (c) ${authorOf(manifest)}`);
}

const mitLicence = (copyright) =>
  fs
    .readFileSync(at("LICENSE"), "utf8")
    .trim()
    .replace(/^Copyright .*$/m, copyright);

/** @param {readonly string[]} shippedFiles */
export function thirdPartyNotices(shippedFiles) {
  const parts = packageFolders().map((folder) => {
    const manifest = JSON.parse(fs.readFileSync(path.join(at(folder), "package.json"), "utf8"));
    if (!acceptedLicences.includes(manifest.license)) {
      throw new Explained(
        `${manifest.name} ${manifest.version}: the licence ${manifest.license} is not in the accepted list.`,
      );
    }
    return `${manifest.name} ${manifest.version} (${manifest.license})\n\n${licenceText(folder, manifest)}\n`;
  });
  const head = "Ringside contains the works below. Each stands here with its licence.\n";
  const ofGpu = shippedFiles.some((file) => file.endsWith("/libringside_cuda.so")) ? [cudaRuntime()] : [];
  return [head, ...parts, ...grammarNotices(mitLicence), ...ofGpu, unicodeTables()].join(`\n${"-".repeat(80)}\n\n`);
}

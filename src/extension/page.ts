// Owns: the one place where a page's HTML is built. Must never put anything into it but the three addresses it is given: what the
// page shows comes later, as messages. Knows nothing of VS Code, so that a test can read what it builds.

export interface PageParts {
  /** Where the page may load from: the webview's own resources. */
  readonly cspSource: string;
  readonly scriptUri: string;
  readonly styleUri: string;
  /** New for each page. */
  readonly nonce: string;
  readonly language: string;
  readonly title: string;
}

/** Of the empty style element that the toolkit inserts. */
const emptyStyleHash = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='";

export function contentSecurityPolicy({ cspSource, nonce }: Pick<PageParts, "cspSource" | "nonce">): string {
  return [
    "default-src 'none'",
    `img-src ${cspSource}`,
    `style-src ${cspSource} ${emptyStyleHash}`,
    `font-src ${cspSource}`,
    `script-src 'nonce-${nonce}'`,
  ].join("; ");
}

export function buildPage(parts: PageParts): string {
  const { scriptUri, styleUri, nonce, language, title } = parts;
  return `<!DOCTYPE html>
<html lang="${attribute(language)}">
  <head>
    <meta charset="utf-8" />
    <meta http-equiv="Content-Security-Policy" content="${attribute(contentSecurityPolicy(parts))}" />
    <meta name="viewport" content="width=device-width, initial-scale=1" />
    <title>${attribute(title)}</title>
    <link rel="stylesheet" href="${attribute(styleUri)}" />
  </head>
  <body>
    <main>
      <h1>${attribute(title)}</h1>
    </main>
    <script nonce="${attribute(nonce)}" src="${attribute(scriptUri)}"></script>
  </body>
</html>
`;
}

/** The apostrophes of the policy stay readable: every attribute above stands in double quotes. */
function attribute(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

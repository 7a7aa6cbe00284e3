// A thousand answers as a hostile repository might make the model write them: everything that ever got a request, a script or a
// command out of a Markdown view, in every wrapping.

const beacon = "https://beacon.test/x";
const script = "window.recorder.hacked=1";

const payloads = [
  `<script>${script}</script>`,
  `<img src=x onerror="${script}">`,
  `<img src="${beacon}">`,
  `<svg onload="${script}"></svg>`,
  `<svg><script>${script}</script></svg>`,
  `<svg><image href="${beacon}"/></svg>`,
  `<math><mtext><table><mglyph><style><img src=x onerror="${script}"></style></mglyph></table></mtext></math>`,
  `<math href="javascript:${script}">x</math>`,
  `<iframe src="${beacon}"></iframe>`,
  `<iframe srcdoc="<script>parent.${script}</script>"></iframe>`,
  `<object data="${beacon}"></object>`,
  `<embed src="${beacon}">`,
  `<link rel=stylesheet href="${beacon}">`,
  `<style>@import "${beacon}";</style>`,
  `<meta http-equiv=refresh content="0;url=${beacon}">`,
  `<base href="${beacon}">`,
  `<form action="${beacon}"><button>go</button></form>`,
  `<video poster="${beacon}" src="${beacon}"></video>`,
  `<audio src="${beacon}" autoplay></audio>`,
  `<body onload="${script}">`,
  `<details open ontoggle="${script}"><summary>x</summary></details>`,
  `<a href="command:workbench.action.terminal.new">x</a>`,
  `<template><img src="${beacon}"></template>`,
  `<noscript><p title="</noscript><img src=x onerror=${script}>"></noscript>`,
  `<pre data-fence="0">x</pre>`,
  `![x](${beacon})`,
  `![x][r]\n\n[r]: ${beacon}`,
  `[![x](${beacon})](${beacon})`,
  `[x](javascript:${script})`,
  `[x](JaVaScRiPt:${script})`,
  `[x](java&#115;cript:${script})`,
  `[x](&#106;avascript:${script})`,
  `[x](<javascript:${script}>)`,
  `[x](\u0001javascript:${script})`,
  `[x](vbscript:msgbox)`,
  `[x](data:text/html,<script>${script}</script>)`,
  `[x](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9ImFsZXJ0KDEpIi8+)`,
  `[x](command:workbench.action.terminal.new)`,
  `[x](command:ringside.ask?%22x%22)`,
  `[x](vscode://settings)`,
  `[x](vscode-resource:/etc/passwd)`,
  `[x](file:///etc/passwd)`,
  `[x](//beacon.test/x)`,
  `[x](/etc/passwd)`,
  `[x](../../etc/passwd)`,
  `[x](mailto:a@beacon.test)`,
  `[x](https://user:pass@beacon.test/x "title' onmouseover='${script}")`,
  `[x][r]\n\n[r]: javascript:${script}`,
  `[x][r]\n\n[r]: ${beacon} "t"`,
  `<${beacon}>`,
  `<javascript:${script}>`,
  beacon,
  `www.beacon.test`,
  "```html\n<script>" + script + "</script>\n```",
  '```"><img src=x onerror=' + script + ">\nx\n```",
  "~~~ js onload=" + script + "\nx\n~~~",
  "`<img src=x onerror=" + script + ">`",
  "| <img src=" + beacon + "> | b |\n|---|---|\n| ![x](" + beacon + ") | [x](javascript:1) |",
  "&lt;img src=x onerror=" + script + "&gt;",
  "&#60;script&#62;" + script + "&#60;/script&#62;",
  "[x\u202e](https://beacon.test/\u202egnp.exe)",
  "\u200b<\u200bscript>" + script + "</script>",
  "[\u{e0041}\u{e0042}](https://beacon.test)",
  "![](" + "a".repeat(3_000) + ")",
  "[".repeat(500) + "x" + "](https://beacon.test)".repeat(20),
  "*".repeat(600) + "x",
  "> ".repeat(120) + "<img src=" + beacon + ">",
  "- ".repeat(80) + `![x](${beacon})`,
  "\\<script>" + script + "\\</script>",
  "<!-- --><script>" + script + "</script><!-- -->",
  "<![CDATA[<script>" + script + "</script>]]>",
];

const wrappings: readonly ((text: string) => string)[] = [
  (text) => text,
  (text) => `Before ${text} after`,
  (text) =>
    text
      .split("\n")
      .map((line) => `> ${line}`)
      .join("\n"),
  (text) =>
    text
      .split("\n")
      .map((line, index) => `${index === 0 ? "- " : "  "}${line}`)
      .join("\n"),
  (text) => `# ${text}`,
  (text) => `**${text}**`,
  (text) => `| a |\n|---|\n| ${text.replaceAll("\n", " ")} |`,
  (text) => `Quote:\n\n\`\`\`ts\n${text}\n\`\`\`\n\n${text}`,
  (text) => `\`\`\`\n${text}`,
  (text) => `    ${text}`,
  (text) => `1. one\n\n   ${text.replaceAll("\n", "\n   ")}\n2. two`,
  (text) => `[${text}](${beacon})`,
  (text) => `![${text}](${beacon})`,
  (text) => `<div>\n\n${text}\n\n</div>`,
];

export const hostileAnswers: readonly string[] = payloads
  .flatMap((payload) => wrappings.map((wrap) => wrap(payload)))
  .concat(`a${"b".repeat(1_000_000)}`, `\`\`\`\n${"c".repeat(1_000_000)}\n\`\`\``, "<b>".repeat(100_000));

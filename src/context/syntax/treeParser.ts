// Owns: the syntax of one file through tree-sitter's grammars, within a limit of time. Must never keep a tree: they lie in
// memory that no garbage collector sees.
import { Language as Grammar, Parser, Query } from "@vscode/tree-sitter-wasm";
import type { Node, QueryCapture, QueryMatch } from "@vscode/tree-sitter-wasm";
import type { Definition } from "../definitions";
import { longestNameCharacters, mostDefinitions, mostReferences } from "./fileSyntax";
import type { FileSyntax } from "./fileSyntax";
import type { Language } from "./language";
import { languageOf } from "./languages";
import { LineSelection } from "./outline";

/** The bytes of a .wasm file by its name. */
export type ReadGrammar = (file: string) => Promise<Uint8Array>;

export interface TreeParserLimits {
  readonly fileCharacters: number;
  /** Steps, each a hundred actions of the parser or nodes of the query: real files need 5 to 15 for 1,000 characters. */
  readonly steps: (characters: number) => number;
  /** The last resort: unlike the steps it falls differently on a busy machine. */
  readonly fileMs: number;
}
const defaultLimits: TreeParserLimits = {
  fileCharacters: 1024 * 1024,
  steps: (characters) => 2_000 + characters / 20,
  fileMs: 3_000,
};
/** Deeper nodes are not looked at, nor more partial matches kept: the time for each node grows with both. */
const queryLimits = { maxStartDepth: 256, matchLimit: 10_000 };

/** In pages of 64 KiB. Where parsing needs more, the grammar's code ends with an error, long before the machine is short of it. */
const memoryPages = { initial: 512, maximum: 4_096 };

/** Every runtime has it; not every room's types do. */
declare const WebAssembly: { readonly Memory: new (pages: { initial: number; maximum: number }) => object };

const runtimeFile = "tree-sitter.wasm";
const plainName = /[\p{L}\p{N}_$]+/uy;

interface LoadedLanguage {
  readonly grammar: Grammar;
  readonly query: Query;
}

export class TreeParser {
  readonly #readGrammar: ReadGrammar;
  readonly #limits: TreeParserLimits;
  readonly #loaded = new Map<Language, Promise<LoadedLanguage | null>>();
  #parser: Promise<Parser> | undefined;

  constructor(readGrammar: ReadGrammar, limits: Partial<TreeParserLimits> = {}) {
    this.#readGrammar = readGrammar;
    this.#limits = { ...defaultLimits, ...limits };
  }

  /**
   * null: no grammar for this language, or the file is too large or takes too long. Throws what the grammar's code throws when
   * it fails; the whole runtime is then not to be used any more.
   */
  async read(path: string, text: string): Promise<FileSyntax | null> {
    const language = languageOf(path);
    if (language === undefined || text.length > this.#limits.fileCharacters) return null;
    const parser = await (this.#parser ??= this.#start());
    const loaded = await this.#load(language);
    if (loaded === null) return null;
    const { grammar, query } = loaded;
    let stepsLeft = this.#limits.steps(text.length);
    const endMs = performance.now() + this.#limits.fileMs;
    const progressCallback = (): boolean => --stepsLeft < 0 || performance.now() > endMs;
    parser.setLanguage(grammar);
    const tree = parser.parse(text, null, { progressCallback });
    if (tree === null) {
      parser.reset();
      return null;
    }
    try {
      // Nothing was made of the file, and a long row of stray tokens takes the query a time that grows with its square.
      if (tree.rootNode.type === "ERROR") return null;
      // Not `captures`: it also gives those of patterns that in the end did not match.
      const matches = query.matches(tree.rootNode, { ...queryLimits, progressCallback });
      return stepsLeft < 0 || performance.now() > endMs
        ? null
        : new SyntaxOfMatches(text, matches, language.name ?? plainName).result();
    } finally {
      tree.delete();
    }
  }

  async #start(): Promise<Parser> {
    const options = {
      wasmBinary: await this.#readGrammar(runtimeFile),
      wasmMemory: new WebAssembly.Memory(memoryPages),
      locateFile: () => runtimeFile,
    };
    await Parser.init(options);
    return new Parser();
  }

  /** null, from then on: there is no such grammar, or it does not fit its query. */
  #load(language: Language): Promise<LoadedLanguage | null> {
    let loaded = this.#loaded.get(language);
    if (loaded === undefined) {
      loaded = this.#readGrammar(language.grammar)
        .then(async (bytes) => {
          const grammar = await Grammar.load(bytes);
          return { grammar, query: new Query(grammar, language.query) };
        })
        .catch(() => null);
      this.#loaded.set(language, loaded);
    }
    return loaded;
  }
}

/** One pass over what the query found, then the lines that it chooses. */
class SyntaxOfMatches {
  readonly #text: string;
  readonly #name: RegExp;
  readonly #selection: LineSelection;
  readonly #shown: [first: number, last: number][] = [];
  readonly #hidden = new Map<number, Node>();
  readonly #open = new Set<number>();
  readonly #docs: Node[] = [];
  readonly #definitions = new Map<number, Definition>();
  /** By their places, since a node may be found as both: it then is a member. */
  readonly #uses = new Map<number, string>();
  readonly #members = new Map<number, string>();
  readonly #imports = new Map<number, string>();
  readonly #locals = new Map<number, string>();

  constructor(text: string, matches: readonly QueryMatch[], name: RegExp) {
    this.#text = text;
    this.#name = name;
    this.#selection = new LineSelection(text.split("\n"));
    for (const { captures } of matches) for (const capture of captures) this.#take(capture);
  }

  result(): FileSyntax {
    for (const place of this.#imports.keys()) this.#definitions.delete(place);
    return {
      definitions: [...this.#definitions.values()].slice(0, mostDefinitions).sort((a, b) => a.line - b.line),
      references: this.#references(),
      outline: this.#outline(),
      parser: "tree-sitter",
    };
  }

  #take({ name: capture, node }: QueryCapture): void {
    switch (capture) {
      case "use":
        this.#uses.set(node.startIndex, this.#nameOf(node));
        break;
      case "member":
        this.#members.set(node.startIndex, this.#nameOf(node));
        break;
      case "local":
        this.#locals.set(node.startIndex, this.#nameOf(node));
        break;
      case "import":
        this.#imports.set(node.startIndex, this.#nameOf(node));
        break;
      case "function":
      case "type":
      case "value":
        this.#define(node, capture);
        break;
      case "show":
        this.#shown.push([node.startPosition.row, lastRowOf(node)]);
        break;
      case "line":
        this.#shown.push([node.startPosition.row, node.startPosition.row]);
        break;
      case "hide":
        this.#hidden.set(node.id, node);
        break;
      case "open":
        this.#open.add(node.id);
        break;
      case "doc":
        this.#docs.push(node);
        break;
      case "comment":
        this.#markComment(node);
        break;
    }
  }

  #define(node: Node, kind: Definition["kind"]): void {
    const { startIndex } = node;
    if (this.#definitions.has(startIndex)) return;
    const { row } = node.startPosition;
    const isTopLevel = !/^\s/.test(this.#selection.lines[row] ?? "");
    const name = this.#nameOf(node);
    if (name !== "") this.#definitions.set(startIndex, { name, line: row + 1, kind, isTopLevel });
  }

  /** Read from the text: asking the tree where the node ends takes longer than the rest of the work on it. */
  #nameOf(node: Node): string {
    const { startIndex } = node;
    this.#name.lastIndex = this.#text[startIndex] === "#" ? startIndex + 1 : startIndex; // A private member of JavaScript.
    const found = this.#name.exec(this.#text)?.[0] ?? "";
    return found.length > longestNameCharacters ? "" : found;
  }

  #markComment(node: Node): void {
    const { row, column } = node.startPosition;
    // A comment behind code belongs to its line.
    if ((this.#selection.lines[row] ?? "").slice(0, column).trim() === "") {
      this.#selection.markComment(row, lastRowOf(node));
    }
  }

  #references(): Map<string, number> {
    const defined = new Set(Array.from(this.#definitions.values(), ({ name }) => name));
    const locals = new Set(this.#locals.values());
    for (const name of this.#imports.values()) locals.delete(name);
    const references = new Map<string, number>();
    const count = (name: string): void => {
      const times = references.get(name) ?? 0;
      const isNew = times === 0 && name !== "" && name !== "_" && !defined.has(name);
      if (times > 0 || (isNew && references.size < mostReferences)) references.set(name, times + 1);
    };
    for (const name of this.#imports.values()) count(name);
    for (const [place, name] of this.#members) if (!this.#locals.has(place)) count(name);
    for (const [place, name] of this.#uses) {
      if (!locals.has(name) && !this.#members.has(place) && !this.#imports.has(place)) count(name);
    }
    return references;
  }

  #outline(): string {
    const selection = this.#selection;
    for (const [first, last] of this.#shown) {
      selection.keep(selection.commentAbove(first), last);
    }
    selection.keepHead();
    for (const [id, node] of this.#hidden) if (!this.#open.has(id)) this.#hide(node);
    for (const node of this.#docs) {
      const { row } = node.startPosition;
      if (row > 0 && selection.isKept(row - 1)) selection.keep(row, lastRowOf(node));
    }
    return selection.outline();
  }

  #hide(node: Node): void {
    const { row, column } = node.startPosition;
    const { row: endRow, column: endColumn } = node.endPosition;
    const { lines } = this.#selection;
    const standsAlone = (lines[row] ?? "").slice(0, column).trim() === "";
    const closes = /^[\s)\]};,]*$/.test((lines[endRow] ?? "").slice(endColumn));
    const endsBelow = /^\s*end$/.test(lines[endRow + 1] ?? ""); // Ruby's bodies end before the word that closes them.
    const last = endsBelow ? endRow + 1 : closes ? endRow : endRow - 1;
    this.#selection.drop(standsAlone ? this.#selection.commentAbove(row) : row + 1, last);
  }
}

/** Some nodes end at the beginning of the line after them. */
function lastRowOf(node: Node): number {
  const { row, column } = node.endPosition;
  return column === 0 && row > node.startPosition.row ? row - 1 : row;
}

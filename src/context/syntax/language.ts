// Owns: what a language has to say about itself to be outlined. Must never hold the rules of one language: those are in languages/.

/**
 * A language is a grammar and one query over its nodes. The captures:
 *
 *   @show      a declaration: all of its lines, and the comment above it
 *   @line      its first line alone, and the comment above it
 *   @hide      a body or a long value: the lines after its first, whatever else shows them
 *   @open      a node that @hide would have taken
 *   @doc       text inside a hidden body that belongs to the declaration (a docstring)
 *   @comment   a comment, or what stands above a declaration like one
 *   @function @type @value     the name of something that other files may use
 *   @use       a name that stands for itself; it is a reference unless the file declares it
 *   @import    a name that another file gives, although what binds it looks like a declaration
 *   @local     a name declared for this file or a part of it
 *   @member    a name that stands behind a dot or is a type; it is a reference whatever the file calls its variables
 *
 * To add a language: a file here with its grammar's .wasm and its query, a line in languages.ts, and the grammar's origin in
 * scripts/grammars.mjs.
 */
export interface Language {
  /** File name of the grammar, without the folder. */
  readonly grammar: string;
  readonly extensions: readonly string[];
  readonly query: string;
  /** What a name looks like where a capture begins; sticky. Only where it may end in more than a letter or digit. */
  readonly name?: RegExp;
}

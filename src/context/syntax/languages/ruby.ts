// Owns: the outline of Ruby.
import type { Language } from "../language";

export const ruby: Language = {
  grammar: "tree-sitter-ruby.wasm",
  extensions: ["rb", "rake"],
  name: /[\p{L}\p{N}_]+[?!=]?/uy,
  query: `
    (comment) @comment

    [(class) (module) (singleton_class)] @line
    [(method) (singleton_method)] @show
    (class body: (body_statement [(call) (identifier) (alias)] @line))
    (module body: (body_statement [(call) (identifier) (alias)] @line))
    (program (assignment left: (constant)) @show)
    (body_statement (assignment left: (constant)) @show)

    [(method body: (_) @hide) (singleton_method body: (_) @hide) (do_block) @hide (block) @hide]
    (assignment left: (constant) right: (_) @hide)

    [(method name: (_) @function) (singleton_method name: (_) @function)]
    [(class name: (constant) @type) (class name: (scope_resolution name: (constant) @type))
     (module name: (constant) @type) (module name: (scope_resolution name: (constant) @type))]
    (assignment left: (constant) @value)

    (identifier) @use
    (constant) @member
    (call method: (identifier) @member)
    (method_parameters [(identifier) @local (optional_parameter name: (identifier) @local)
      (keyword_parameter name: (identifier) @local) (splat_parameter name: (identifier) @local)
      (hash_splat_parameter name: (identifier) @local) (block_parameter name: (identifier) @local)])
    (block_parameters (identifier) @local)
    (assignment left: (identifier) @local)
    (left_assignment_list (identifier) @local)
    (exception_variable (identifier) @local)
  `,
};

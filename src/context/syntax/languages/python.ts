// Owns: the outline of Python.
import type { Language } from "../language";

export const python: Language = {
  grammar: "tree-sitter-python.wasm",
  extensions: ["py", "pyi"],
  query: `
    (comment) @comment
    (module . (expression_statement (string) @comment) @show)

    (function_definition) @show
    (class_definition) @show
    (decorated_definition) @show
    (module (expression_statement (assignment)) @show)
    (module (type_alias_statement) @show)

    (function_definition body: (block) @hide)
    (function_definition body: (block . (expression_statement (string)) @doc))
    (expression_statement (string) @comment)
    (assignment right: (_) @hide)

    (function_definition name: (identifier) @function)
    (class_definition name: (identifier) @type)
    (module (expression_statement (assignment left: (identifier) @value)))
    (class_definition body: (block (expression_statement (assignment left: (identifier) @value))))

    (identifier) @use
    (attribute attribute: (identifier) @member)
    (parameters [(identifier) @local
      (default_parameter name: (identifier) @local)
      (typed_parameter (identifier) @local)
      (typed_default_parameter name: (identifier) @local)
      (list_splat_pattern (identifier) @local)
      (dictionary_splat_pattern (identifier) @local)])
    (lambda_parameters (identifier) @local)
    (assignment left: (identifier) @local)
    (pattern_list (identifier) @local)
    (for_statement left: (identifier) @local)
    (for_in_clause left: (identifier) @local)
    (as_pattern_target (identifier) @local)
  `,
};

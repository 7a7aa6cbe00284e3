// Owns: the outline of Go.
import type { Language } from "../language";

export const go: Language = {
  grammar: "tree-sitter-go.wasm",
  extensions: ["go"],
  query: `
    (comment) @comment

    [(function_declaration) (method_declaration) (type_declaration)] @show
    (source_file [(const_declaration) (var_declaration)] @show)

    [(function_declaration body: (_) @hide) (method_declaration body: (_) @hide) (func_literal body: (_) @hide)]
    (composite_literal body: (_) @hide)

    (function_declaration name: (_) @function)
    (method_declaration name: (_) @function)
    (method_elem name: (_) @function)
    [(type_spec name: (_) @type) (type_alias name: (_) @type)]
    (source_file [
      (const_declaration (const_spec name: (identifier) @value))
      (var_declaration (var_spec name: (identifier) @value))
      (var_declaration (var_spec_list (var_spec name: (identifier) @value)))])

    (identifier) @use
    [(field_identifier) (type_identifier)] @member
    (parameter_declaration name: (identifier) @local)
    (variadic_parameter_declaration name: (identifier) @local)
    (short_var_declaration left: (expression_list (identifier) @local))
    (range_clause left: (expression_list (identifier) @local))
    (var_spec name: (identifier) @local)
  `,
};

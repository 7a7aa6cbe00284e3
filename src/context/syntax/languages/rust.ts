// Owns: the outline of Rust.
import type { Language } from "../language";

export const rust: Language = {
  grammar: "tree-sitter-rust.wasm",
  extensions: ["rs"],
  query: `
    [(line_comment) (block_comment) (attribute_item)] @comment

    [(function_item) (function_signature_item) (struct_item) (enum_item) (union_item) (trait_item) (type_item)
     (macro_definition) (const_item) (static_item)] @show
    [(impl_item) (foreign_mod_item)] @show
    (mod_item) @line
    ((use_declaration (visibility_modifier)) @show)

    (function_item body: (_) @hide)
    (macro_definition) @hide
    (const_item value: (_) @hide)
    (static_item value: (_) @hide)

    [(function_item name: (_) @function) (function_signature_item name: (_) @function) (macro_definition name: (_) @function)]
    [(struct_item name: (_) @type) (enum_item name: (_) @type) (union_item name: (_) @type) (trait_item name: (_) @type)
     (type_item name: (_) @type) (mod_item name: (_) @type)]
    [(const_item name: (_) @value) (static_item name: (_) @value)]

    (identifier) @use
    [(field_identifier) (type_identifier)] @member
    (parameter pattern: (identifier) @local)
    (let_declaration pattern: (identifier) @local)
    (closure_parameters (identifier) @local)
    (for_expression pattern: (identifier) @local)
    (tuple_pattern (identifier) @local)
    (tuple_struct_pattern (identifier) @local)
    (type_parameter name: (type_identifier) @local)
  `,
};

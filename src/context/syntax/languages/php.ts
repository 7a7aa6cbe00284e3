// Owns: the outline of PHP.
import type { Language } from "../language";

export const php: Language = {
  grammar: "tree-sitter-php.wasm",
  extensions: ["php"],
  query: `
    (comment) @comment

    [(function_definition) (class_declaration) (interface_declaration) (trait_declaration) (enum_declaration)] @show
    (namespace_definition) @line
    (const_declaration) @show

    [(function_definition body: (_) @hide) (method_declaration body: (_) @hide) (anonymous_function body: (_) @hide)
     (property_hook_list) @hide (array_creation_expression) @hide (match_block) @hide]

    [(function_definition name: (_) @function) (method_declaration name: (_) @function)]
    [(class_declaration name: (_) @type) (interface_declaration name: (_) @type) (trait_declaration name: (_) @type)
     (enum_declaration name: (_) @type)]
    [(const_element (name) @value) (enum_case name: (_) @value)
     (property_declaration (property_element name: (variable_name (name) @value)))]

    (name) @member
    (variable_name (name) @local)
  `,
};

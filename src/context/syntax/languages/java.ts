// Owns: the outline of Java.
import type { Language } from "../language";

export const java: Language = {
  grammar: "tree-sitter-java.wasm",
  extensions: ["java"],
  query: `
    [(line_comment) (block_comment)] @comment

    (program [(class_declaration) (interface_declaration) (enum_declaration) (record_declaration)
      (annotation_type_declaration)] @show)

    [(method_declaration body: (_) @hide) (constructor_declaration body: (_) @hide)
     (compact_constructor_declaration body: (_) @hide) (static_initializer (block) @hide)
     (lambda_expression body: (_) @hide) (array_initializer) @hide]
    (object_creation_expression (class_body) @hide)
    (field_declaration declarator: (variable_declarator value: (_) @hide))

    [(method_declaration name: (_) @function) (constructor_declaration name: (_) @function)
     (annotation_type_element_declaration name: (_) @function)]
    [(class_declaration name: (_) @type) (interface_declaration name: (_) @type) (enum_declaration name: (_) @type)
     (record_declaration name: (_) @type) (annotation_type_declaration name: (_) @type)]
    [(field_declaration declarator: (variable_declarator name: (_) @value))
     (constant_declaration declarator: (variable_declarator name: (_) @value)) (enum_constant name: (_) @value)]

    (identifier) @use
    (type_identifier) @member
    (method_invocation name: (identifier) @member)
    (field_access field: (identifier) @member)
    (formal_parameter name: (identifier) @local)
    (spread_parameter (variable_declarator name: (identifier) @local))
    (local_variable_declaration declarator: (variable_declarator name: (identifier) @local))
    (enhanced_for_statement name: (identifier) @local)
    (catch_formal_parameter name: (identifier) @local)
    (inferred_parameters (identifier) @local)
    (lambda_expression parameters: (identifier) @local)
    (resource name: (identifier) @local)
    (type_parameter (type_identifier) @local)
  `,
};

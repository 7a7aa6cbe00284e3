// Owns: the outline of C#.
import type { Language } from "../language";

export const csharp: Language = {
  grammar: "tree-sitter-c-sharp.wasm",
  extensions: ["cs"],
  query: `
    (comment) @comment

    [(class_declaration) (interface_declaration) (struct_declaration) (record_declaration) (enum_declaration)
     (delegate_declaration)] @show
    (namespace_declaration) @line
    (global_statement (local_function_statement)) @show

    [(method_declaration body: (_) @hide) (constructor_declaration body: (_) @hide) (destructor_declaration body: (_) @hide)
     (operator_declaration body: (_) @hide) (conversion_operator_declaration body: (_) @hide)
     (local_function_statement body: (_) @hide) (accessor_declaration body: (_) @hide)
     (lambda_expression body: (_) @hide) (initializer_expression) @hide (constructor_initializer) @hide]
    (property_declaration value: (_) @hide)

    [(method_declaration name: (_) @function) (constructor_declaration name: (_) @function)
     (local_function_statement name: (_) @function)]
    [(class_declaration name: (_) @type) (interface_declaration name: (_) @type) (struct_declaration name: (_) @type)
     (record_declaration name: (_) @type) (enum_declaration name: (_) @type) (delegate_declaration name: (_) @type)]
    [(property_declaration name: (_) @value) (enum_member_declaration name: (_) @value)
     (field_declaration (variable_declaration (variable_declarator name: (_) @value)))]

    (identifier) @use
    (member_access_expression name: (identifier) @member)
    (parameter name: (identifier) @local)
    (local_declaration_statement (variable_declaration (variable_declarator name: (identifier) @local)))
    (foreach_statement left: (identifier) @local)
    (catch_declaration name: (identifier) @local)
    (implicit_parameter) @local
    (declaration_expression name: (identifier) @local)
    (declaration_pattern name: (identifier) @local)
    (type_parameter name: (identifier) @local)
  `,
};

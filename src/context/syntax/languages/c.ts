// Owns: the outlines of C and of C++ with CUDA.
import type { Language } from "../language";

/** Both grammars have these. */
const shared = `
  (comment) @comment

  (function_definition) @show
  (declaration) @show
  (type_definition) @show
  (struct_specifier name: (_) body: (_)) @show
  (union_specifier name: (_) body: (_)) @show
  (enum_specifier body: (_)) @show
  [(preproc_def) (preproc_function_def)] @line

  (function_definition body: (_) @hide)
  (initializer_list) @hide

  (function_declarator declarator: (identifier) @function)
  (struct_specifier name: (type_identifier) @type body: (_))
  (union_specifier name: (type_identifier) @type body: (_))
  (enum_specifier name: (type_identifier) @type body: (_))
  (type_definition declarator: (type_identifier) @type)
  (type_definition declarator: (pointer_declarator declarator: (type_identifier) @type))
  (type_definition declarator: (array_declarator declarator: (type_identifier) @type))
  (type_definition declarator: (function_declarator declarator: (parenthesized_declarator
    (pointer_declarator declarator: (type_identifier) @type))))
  (preproc_def name: (_) @value)
  (preproc_function_def name: (_) @function)
  (translation_unit (declaration declarator: (init_declarator declarator: (identifier) @value)))
  (translation_unit (declaration declarator: (init_declarator declarator: (_ declarator: (identifier) @value))))
  (enumerator name: (_) @value)

  (identifier) @use
  [(field_identifier) (type_identifier)] @member
  (parameter_declaration declarator: (identifier) @local)
  (pointer_declarator declarator: (identifier) @local)
  (array_declarator declarator: (identifier) @local)
  (init_declarator declarator: (identifier) @local)
  (declaration declarator: (identifier) @local)
`;

export const c: Language = {
  grammar: "tree-sitter-c.wasm",
  extensions: ["c"],
  query: shared,
};

/** Headers too: what C has in them, this grammar reads as well. */
export const cpp: Language = {
  grammar: "tree-sitter-cpp.wasm",
  extensions: ["cc", "cpp", "cxx", "h", "hh", "hpp", "hxx", "inl", "cu", "cuh"],
  query: `${shared}
    (class_specifier name: (_) body: (_)) @show
    (template_declaration) @show
    [(alias_declaration) (concept_definition)] @show
    (namespace_definition) @line

    (field_initializer_list) @hide
    (lambda_expression body: (_) @hide)

    (function_declarator declarator: (field_identifier) @function)
    (function_declarator declarator: (qualified_identifier name: (identifier) @function))
    (function_declarator declarator: (qualified_identifier name: (qualified_identifier name: (identifier) @function)))
    (class_specifier name: (type_identifier) @type body: (_))
    (alias_declaration name: (type_identifier) @type)
    (concept_definition name: (identifier) @type)
    (namespace_definition name: (namespace_identifier) @type)
    (declaration_list (declaration declarator: (init_declarator declarator: (identifier) @value)))

    (namespace_identifier) @member
    (reference_declarator (identifier) @local)
    (for_range_loop declarator: (identifier) @local)
    (optional_parameter_declaration declarator: (identifier) @local)
    (type_parameter_declaration (type_identifier) @local)
  `,
};

// Owns: the outline of TypeScript, TSX and JavaScript.
import type { Language } from "../language";

const functionNodes = "[(function_expression) (arrow_function) (generator_function)]";

/** What all three grammars have. */
const shared = `
  (comment) @comment

  (program (export_statement) @show)
  (program [(function_declaration) (generator_function_declaration) (class_declaration)] @show)
  (program (lexical_declaration (variable_declarator value: ${functionNodes})) @show)
  (program (variable_declaration (variable_declarator value: ${functionNodes})) @show)
  (program (lexical_declaration (variable_declarator value: (class))) @show)
  (program (lexical_declaration (variable_declarator
    value: (call_expression arguments: (arguments . ${functionNodes})))) @show)
  (program (expression_statement (assignment_expression left: (member_expression))) @show)
  (program (expression_statement
    (call_expression arguments: (arguments . (string) ${functionNodes}))) @line)
  (program (expression_statement (call_expression function: (identifier) @_suite arguments: (arguments . (string) (_
    body: (statement_block (expression_statement
      (call_expression arguments: (arguments . (string) ${functionNodes}))) @line) @open)) @open))
    (#match? @_suite "^(describe|suite|context)$"))

  (program (expression_statement
    (call_expression function: (parenthesized_expression (function_expression body: (_) @open)))))
  (program (expression_statement
    (call_expression function: (parenthesized_expression (arrow_function body: (statement_block) @open)))))
  (program (expression_statement
    (parenthesized_expression (call_expression function: (function_expression body: (_) @open)))))
  (program (expression_statement (call_expression
    arguments: (arguments (function_expression body: (statement_block (function_declaration)) @open)) @open)))
  (function_expression body: (statement_block [(function_declaration) (class_declaration)] @show))
  (function_expression body: (statement_block
    (expression_statement (assignment_expression left: (member_expression))) @show))
  (arrow_function body: (statement_block [(function_declaration) (class_declaration)] @show))

  [(function_declaration body: (_) @hide) (generator_function_declaration body: (_) @hide)
   (function_expression body: (_) @hide) (generator_function body: (_) @hide)
   (arrow_function body: (_) @hide) (method_definition body: (_) @hide) (class_static_block body: (_) @hide)]
  [(object) (array) (template_string) (jsx_element)] @hide
  (call_expression arguments: (arguments) @hide)
  (assignment_expression left: (member_expression) right: (object) @open)
  (export_statement value: (object) @open)
  (export_statement value: (call_expression arguments: (arguments . (object) @open .) @open))

  [(function_declaration name: (_) @function) (generator_function_declaration name: (_) @function)]
  (method_definition name: [(property_identifier) (private_property_identifier)] @function)
  (class_declaration name: (_) @type)
  (variable_declarator name: (identifier) @function value: ${functionNodes})
  (variable_declarator name: (identifier) @type value: (class))
  (assignment_expression left: (member_expression property: (property_identifier) @function) right: ${functionNodes})
  (pair key: (property_identifier) @function value: ${functionNodes})
  (program (lexical_declaration (variable_declarator name: (identifier) @value)))
  (program (variable_declaration (variable_declarator name: (identifier) @value)))
  (program (export_statement (lexical_declaration (variable_declarator name: (identifier) @value))))
  (assignment_expression
    left: (member_expression object: (_) @_object property: (property_identifier) @value)
    (#match? @_object "^(module\\\\.)?exports$"))

  (variable_declarator
    name: [(identifier) @import (object_pattern (shorthand_property_identifier_pattern) @import)]
    value: (call_expression function: (identifier) @_require) (#eq? @_require "require"))

  [(identifier) (shorthand_property_identifier)] @use
  (property_identifier) @member
  (variable_declarator name: (identifier) @local)
  (arrow_function parameter: (identifier) @local)
  (catch_clause parameter: (identifier) @local)
  (for_in_statement left: (identifier) @local)
  (shorthand_property_identifier_pattern) @local
  (pair_pattern value: (identifier) @local)
  (array_pattern (identifier) @local)
  (assignment_pattern left: (identifier) @local)
  (rest_pattern (identifier) @local)
`;

const types = `
  (program [(interface_declaration) (type_alias_declaration) (enum_declaration) (abstract_class_declaration)
    (ambient_declaration) (function_signature)] @show)
  (program (expression_statement (internal_module)) @line)
  (internal_module body: (statement_block [(export_statement) (function_declaration) (class_declaration)
    (interface_declaration) (type_alias_declaration) (enum_declaration) (function_signature)] @show))
  (abstract_class_declaration name: (_) @type)
  (interface_declaration name: (_) @type)
  (type_alias_declaration name: (_) @type)
  (enum_declaration name: (_) @type)
  [(internal_module name: (identifier) @type) (module name: (identifier) @type)]
  (function_signature name: (_) @function)
  (abstract_method_signature name: (property_identifier) @function)
  (method_signature name: (property_identifier) @function)
  (ambient_declaration (lexical_declaration (variable_declarator name: (identifier) @value)))
  (public_field_definition name: (property_identifier) @function value: ${functionNodes})
  (class name: (type_identifier) @type)
  (type_identifier) @member
  (required_parameter pattern: (identifier) @local)
  (optional_parameter pattern: (identifier) @local)
  (type_parameter name: (type_identifier) @local)
`;

const withoutElements = shared.replace(" (jsx_element)", "");

export const typescript: Language = {
  grammar: "tree-sitter-typescript.wasm",
  extensions: ["ts", "mts", "cts"],
  query: withoutElements + types,
};

export const tsx: Language = {
  grammar: "tree-sitter-tsx.wasm",
  extensions: ["tsx"],
  query: shared + types,
};

export const javascript: Language = {
  grammar: "tree-sitter-javascript.wasm",
  extensions: ["js", "mjs", "cjs", "jsx"],
  query: `${shared}
    (class name: (identifier) @type)
    (formal_parameters (identifier) @local)
    (field_definition property: (property_identifier) @function value: ${functionNodes})`,
};

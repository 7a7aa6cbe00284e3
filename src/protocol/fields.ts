// Owns: the checks from which the validators are made: each takes an unknown value and gives back a clean copy of it, or
// throws RingsideFailure "frame-invalid" naming the field, what was allowed and what came.
// Must never put the content of a string into an error: it may be a prompt.
import { failure } from "./errors";

export type Check<T> = (value: unknown, field: string) => T;

function refuse(field: string, expected: string, value: unknown): never {
  throw failure("frame-invalid", field, expected, describe(value));
}

function describe(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return `list of ${String(value.length)}`;
  if (typeof value === "string") return `string of ${String(value.length)} characters`;
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  return typeof value;
}

export function integer(min: number, max: number): Check<number> {
  return (value, field) =>
    typeof value === "number" && Number.isSafeInteger(value) && value >= min && value <= max
      ? value
      : refuse(field, `integer from ${String(min)} to ${String(max)}`, value);
}

export function decimal(min: number, max: number): Check<number> {
  return (value, field) =>
    typeof value === "number" && Number.isFinite(value) && value >= min && value <= max
      ? value
      : refuse(field, `number from ${String(min)} to ${String(max)}`, value);
}

export function text(maxCharacters: number): Check<string> {
  return (value, field) =>
    typeof value === "string" && value.length <= maxCharacters
      ? value
      : refuse(field, `string of at most ${String(maxCharacters)} characters`, value);
}

export const truth: Check<boolean> = (value, field) =>
  typeof value === "boolean" ? value : refuse(field, "true or false", value);

export function choice<T extends string>(choices: readonly T[]): Check<T> {
  return (value, field) =>
    choices.find((candidate) => candidate === value) ?? refuse(field, choices.join(" | "), value);
}

export function list<T>(maxItems: number, item: Check<T>): Check<readonly T[]> {
  return (value, field) => {
    if (!Array.isArray(value) || value.length > maxItems) {
      return refuse(field, `list of at most ${String(maxItems)}`, value);
    }
    return value.map((element: unknown, index) => item(element, `${field}[${String(index)}]`));
  };
}

export function nullable<T>(check: Check<T>): Check<T | null> {
  return (value, field) => (value === null ? null : check(value, field));
}

/** A key that may be absent; object() then leaves it out. */
export function optional<T>(check: Check<T>): Check<T | undefined> {
  return (value, field) => (value === undefined ? undefined : check(value, field));
}

function fieldsOf(value: unknown, field: string): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return refuse(field, "object", value);
  return value as Readonly<Record<string, unknown>>;
}

export type Shape<T> = { readonly [K in keyof T]-?: Check<T[K]> };

/** Exactly the keys of `shape`: what else the value has is not copied. */
export function object<T>(shape: Shape<T>): Check<T> {
  const checks = Object.entries<Check<unknown>>(shape);
  return (value, field) => {
    const fields = fieldsOf(value, field);
    const copy: Record<string, unknown> = {};
    for (const [key, check] of checks) {
      // Own keys only, so that nothing is read from a prototype.
      const checked = check(Object.hasOwn(fields, key) ? fields[key] : undefined, `${field}.${key}`);
      if (checked !== undefined) copy[key] = checked;
    }
    return copy as T;
  };
}

export type Cases<Tag extends string, T extends Readonly<Record<Tag, string>>> = {
  readonly [K in T[Tag]]: Shape<Omit<Extract<T, Readonly<Record<Tag, K>>>, Tag>>;
};

/** A union told apart by the string in `tag`; a tag without a case is refused. */
export function tagged<Tag extends string, T extends Readonly<Record<Tag, string>>>(
  tag: Tag,
  cases: Cases<Tag, T>,
): Check<T> {
  const checks = new Map(
    Object.entries<Shape<Record<string, unknown>>>(cases).map(([name, shape]) => [name, object(shape)]),
  );
  return (value, field) => {
    const fields = fieldsOf(value, field);
    const name = Object.hasOwn(fields, tag) ? fields[tag] : undefined;
    const check = typeof name === "string" ? checks.get(name) : undefined;
    if (check === undefined) return refuse(`${field}.${tag}`, [...checks.keys()].join(" | "), name);
    return { [tag]: name, ...check(value, field) } as unknown as T;
  };
}

// Resources as YAML, as people write them: the fields that a caller sets, under the names of the protos.

import { fromJson, getOption, toJson, type DescEnum, type DescMessage, type JsonObject, type JsonValue, type MessageShape } from "@bufbuild/protobuf";
import { parseDocument, stringify } from "yaml";
import { field as fieldOption } from "../gen/pilothouse/options/v1/options_pb";
import { enumWords } from "./words";
import type { FieldChange, Warning } from "../gen/pilothouse/resource/v1/resource_pb";

export interface How {
  validateOnly: boolean;
  requestId: string;
}

export interface Outcome {
  $typeName?: string;
  warnings?: Warning[];
  /** The differences as the server has them; without them the page compares by itself. */
  changes?: FieldChange[];
  rollsOut?: boolean;
}

/** One entry of the form over the YAML. */
export interface Entry {
  label: string;
  path: string[];
  kind: "text" | "number" | "choice";
  choices?: { value: string; label: string }[];
  example?: string;
}

/** How resources of a noun are created and changed. */
export interface Editable<S extends DescMessage = DescMessage> {
  /** In words. */
  noun: string;
  schema: S;
  createPermission: string;
  updatePermission: string;
  hasNamespace: boolean;
  entries: Entry[];
  /** The YAML that a new one begins with. */
  start: string;
  /** The fields that a change may name; without it all that the caller sets. */
  changeable?: string[];
  /** Fields whose values are not shown in differences. */
  hidden?: string[];
  create: (namespace: string, message: MessageShape<S>, how: How) => Promise<Outcome>;
  update: (before: MessageShape<S>, message: MessageShape<S>, paths: string[], how: How) => Promise<Outcome>;
}

/** The values of an enum, as YAML has them and as people read them. */
export const choicesOf = (schema: DescEnum): { value: string; label: string }[] =>
  schema.values.slice(1).map((each) => ({ value: each.name, label: enumWords(schema, each.number) }));

export interface Difference {
  path: string;
  before: string;
  after: string;
}

const IDENTITY = new Set(["name", "namespace", "uid"]);

function fieldsOf(of: Editable): string[] {
  const settable = of.schema.fields.filter((each) => !IDENTITY.has(each.name) && !getOption(each, fieldOption).outputOnly).map((each) => each.name);
  return settable;
}

function jsonOf(schema: DescMessage, message: MessageShape<DescMessage>, names: string[]): JsonObject {
  const whole = toJson(schema, message, { useProtoFieldName: true }) as JsonObject;
  return Object.fromEntries(names.filter((name) => whole[name] !== undefined).map((name) => [name, whole[name] as JsonValue]));
}

/** The YAML of what is there; of a hidden field nothing. */
export function textOf(of: Editable, message: MessageShape<DescMessage>): string {
  const found = jsonOf(of.schema, message, of.changeable ?? fieldsOf(of));
  return Object.keys(found).length ? stringify(found, { lineWidth: 0 }) : "";
}

/** The message of the YAML. Raises an error with the place that is wrong. */
export function messageOf(of: Editable, text: string): MessageShape<DescMessage> {
  const parsed = parseDocument(text, { uniqueKeys: true });
  const problem = parsed.errors[0];
  if (problem) throw new Error(problem.message.split("\n")[0]);
  const value = (parsed.toJS({ maxAliasCount: 100 }) ?? {}) as JsonObject;
  if (typeof value !== "object" || Array.isArray(value)) throw new Error("The YAML must be a map of fields.");
  const allowed = of.changeable ?? fieldsOf(of);
  const unknown = Object.keys(value).find((name) => !allowed.includes(name));
  if (unknown) throw new Error(`"${unknown}" cannot be set here. Fields: ${allowed.join(", ")}.`);
  try {
    return fromJson(of.schema, value);
  } catch (error) {
    throw new Error(error instanceof Error ? error.message.replace(/^cannot decode (message|field) pilothouse\.[a-z]+\.v1\./, "") : String(error));
  }
}

/** The fields in which two messages differ. */
export function changedPaths(of: Editable, before: MessageShape<DescMessage>, after: MessageShape<DescMessage>): string[] {
  const names = of.changeable ?? fieldsOf(of);
  const [old, fresh] = [jsonOf(of.schema, before, names), jsonOf(of.schema, after, names)];
  return names.filter((name) => JSON.stringify(ordered(old[name])) !== JSON.stringify(ordered(fresh[name])));
}

export function differences(of: Editable, before: MessageShape<DescMessage> | undefined, after: MessageShape<DescMessage>): Difference[] {
  const names = of.changeable ?? fieldsOf(of);
  const old = before ? flat(jsonOf(of.schema, before, names)) : new Map<string, string>();
  const fresh = flat(jsonOf(of.schema, after, names));
  const shown = (path: string, value: string | undefined) => (value !== undefined && of.hidden?.some((name) => path.startsWith(name)) ? "(hidden)" : (value ?? ""));
  return [...new Set([...old.keys(), ...fresh.keys()])]
    .filter((path) => old.get(path) !== fresh.get(path))
    .sort()
    .map((path) => ({ path, before: shown(path, old.get(path)), after: shown(path, fresh.get(path)) }));
}

/** Sets a value at its place; the rest of the text stays, with its comments. '' removes it. */
export function withEntry(text: string, entry: Entry, value: string): string {
  const parsed = parseDocument(text);
  if (parsed.errors.length) return text;
  if (value === "") parsed.deleteIn(entry.path);
  else parsed.setIn(entry.path, entry.kind === "number" && /^\d+$/.test(value) ? Number(value) : value);
  return parsed.toString({ lineWidth: 0 });
}

export function entryOf(text: string, entry: Entry): string {
  const parsed = parseDocument(text);
  const found: unknown = parsed.errors.length ? undefined : parsed.getIn(entry.path);
  return found === undefined || found === null || typeof found === "object" ? "" : String(found);
}

function ordered(value: JsonValue | undefined): JsonValue | undefined {
  if (Array.isArray(value)) return value.map((each) => ordered(each) as JsonValue);
  if (value && typeof value === "object") return Object.fromEntries(Object.keys(value).sort().map((key) => [key, ordered(value[key]) as JsonValue]));
  return value;
}

function flat(value: JsonValue, path = "", into = new Map<string, string>()): Map<string, string> {
  if (Array.isArray(value)) value.forEach((each, at) => flat(each, `${path}[${nameIn(each) ?? at}]`, into));
  else if (value && typeof value === "object") for (const [key, each] of Object.entries(value)) flat(each, path ? `${path}.${key}` : key, into);
  else into.set(path, String(value));
  return into;
}

function nameIn(value: JsonValue): string | undefined {
  return value && typeof value === "object" && !Array.isArray(value) && typeof value.name === "string" ? value.name : undefined;
}

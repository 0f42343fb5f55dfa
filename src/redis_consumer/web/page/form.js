// A form from a JSON Schema of options, so that each kind of job has one without a line of its own.
import { Field } from "./ui.js";
import { html } from "./vendor/preact.js";

/** The schema of a value that may also be null. */
function given(schema) {
  return schema.anyOf?.find((each) => each.type !== "null") || schema;
}

const titleOf = (name, schema) =>
  schema.title && schema.title !== name
    ? schema.title
    : name
        .replaceAll(".", ": ")
        .replaceAll("_", " ")
        .replace(/^./, (first) => first.toUpperCase());

function Input({ id, schema, value, onChange }) {
  const kind = given(schema);
  const described = schema.description ? `${id}-hint` : undefined;
  const choices =
    kind.enum || kind.oneOf?.map((each) => each.const) || (kind.const !== undefined ? [kind.const] : null);
  if (choices) {
    return html`<select id=${id} aria-describedby=${described} value=${value ?? ""} onChange=${(event) => onChange(event.target.value)}>
      <option value="">Default${schema.default !== undefined && schema.default !== null && schema.default !== "" ? ` (${schema.default})` : ""}</option>
      ${choices.filter((each) => each !== "").map((each) => html`<option value=${each}>${String(each)}</option>`)}
    </select>`;
  }
  if (kind.type === "boolean") {
    return html`<select id=${id} aria-describedby=${described} value=${value ?? ""} onChange=${(event) => onChange(event.target.value)}>
      <option value="">Default${schema.default !== undefined ? ` (${schema.default ? "yes" : "no"})` : ""}</option><option value="1">Yes</option><option value="0">No</option>
    </select>`;
  }
  const isNumber = ["number", "integer"].includes(kind.type);
  const shown = Array.isArray(schema.default) ? schema.default.join(", ") : schema.default;
  return html`<input id=${id} aria-describedby=${described} type=${isNumber ? "number" : "text"} step=${kind.type === "integer" ? 1 : "any"}
    min=${kind.minimum ?? kind.exclusiveMinimum} max=${kind.maximum ?? kind.exclusiveMaximum} placeholder=${shown ?? ""} value=${value ?? ""}
    onChange=${(event) => onChange(event.target.value)} />`;
}

/** Fields for all properties of `schema` but those in `without`. `values`: texts by name. */
export function OptionsForm({ schema, without = [], values, onChange }) {
  const properties = Object.entries(schema?.properties || {}).filter(([name]) => !without.includes(name));
  if (!properties.length) return html`<p class="hint">This kind of job has no more settings.</p>`;
  return properties.map(
    ([name, each]) => html`
    <${Field} key=${name} id=${`option-${name}`} label=${titleOf(name, each)} hint=${each.description}>
      <${Input} id=${`option-${name}`} schema=${each} value=${values[name]} onChange=${(value) => onChange({ ...values, [name]: value })} />
    <//>`,
  );
}

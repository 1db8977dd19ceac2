// Values as people read them.

import type { DescEnum } from "@bufbuild/protobuf";
import { timestampDate, type Timestamp } from "@bufbuild/protobuf/wkt";

const UNITS: [string, number][] = [
  ["d", 86_400],
  ["h", 3_600],
  ["m", 60],
  ["s", 1],
];

/** The name of an enum's value: "Crash loop back off" of CONTAINER_STATUS_CRASH_LOOP_BACK_OFF. */
export function enumWords(type: DescEnum, value: number): string {
  const name = type.value[value]?.localName ?? String(value);
  return name === "UNSPECIFIED" ? "" : wordsOfName(name);
}

/** As in filters: "Crash loop back off" of CRASH_LOOP_BACK_OFF. */
export function wordsOfName(name: string): string {
  const words = name.replaceAll("_", " ").toLowerCase();
  return (words.charAt(0).toUpperCase() + words.slice(1)).replace(/\bip\b/i, "IP");
}

/** The time since a moment, in its largest unit. */
export function age(moment: Timestamp | undefined, now: number): string {
  if (!moment) return "";
  const seconds = Math.max(0, now / 1000 - Number(moment.seconds));
  for (const [unit, size] of UNITS) if (seconds >= size) return `${Math.floor(seconds / size)}${unit}`;
  return "0s";
}

/** A moment in the zone of the reader. */
export function exact(moment: Timestamp | undefined): string {
  return moment ? timestampDate(moment).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" }) : "";
}

export function clock(moment: Timestamp | undefined): string {
  return moment ? timestampDate(moment).toLocaleTimeString() : "";
}

/** A moment in the zone of the reader, to the second. */
export function short(moment: Timestamp | undefined): string {
  return moment ? timestampDate(moment).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }) : "";
}

/** A size in the largest unit of which it has one: "1.5 GiB". */
export function bytes(size: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  let value = size;
  while (Math.abs(value) >= 1024 && at < units.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${value >= 100 || at === 0 ? Math.round(value) : Math.round(value * 10) / 10} ${units[at]}`;
}

const MOST_OF_IMAGE = 28;

/** An image by its end, which says more than its registry: "…/frontend:v2". */
export const imageWords = (image: string): string => (image.length > MOST_OF_IMAGE && image.includes("/") ? `…${image.slice(image.lastIndexOf("/"))}` : image);

const POWERS = ["", "k", "M", "G", "T", "P", "E"];

/** The number of a Kubernetes quantity; 0 of ''. */
export function quantity(text: string): number {
  const [, number = "0", unit = ""] = /^([\d.eE+-]*\d)([a-zA-Z]*)$/.exec(text) ?? [];
  if (unit === "m") return Number(number) / 1000;
  const power = POWERS.indexOf(unit.replace("i", "").replace("K", "k"));
  return Number(number) * (unit.endsWith("i") ? 1024 : 1000) ** Math.max(0, power);
}

// The tones of statuses. The first page loads them without the messages of the nouns.

export type Tone = "good" | "busy" | "bad" | "still";

const TONES: Record<string, Tone> = {
  HEALTHY: "good",
  RUNNING: "good",
  SUCCEEDED: "good",
  ACTIVE: "good",
  AVAILABLE: "good",
  BOUND: "good",
  PENDING: "busy",
  PROGRESSING: "busy",
  FAILED: "bad",
  CRASH_LOOP_BACK_OFF: "bad",
  DEGRADED: "bad",
  MISSING: "bad",
};

/** The tone of a status of any noun, in the form of filters. */
export const toneOfName = (status: string): Tone => TONES[status] ?? "still";

// The statuses of containers and applications.

import { ApplicationPhase, ApplicationPhaseSchema, ApplicationStatus, ApplicationStatusSchema } from "../gen/pilothouse/application/v1/application_pb";
import { ContainerStatus, ContainerStatusSchema, type Container } from "../gen/pilothouse/container/v1/container_pb";
import { ConditionStatus } from "../gen/pilothouse/resource/v1/resource_pb";
import { toneOfName, type Tone } from "./tones";
import { enumWords } from "./words";

export const containerWords = (status: ContainerStatus): string => enumWords(ContainerStatusSchema, status) || "Unknown";

export const containerTone = (status: ContainerStatus): Tone => toneOfName(ContainerStatus[status] ?? "");

export const applicationTone = (status: ApplicationStatus): Tone => toneOfName(ApplicationStatus[status] ?? "");

export const applicationWords = (status: ApplicationStatus): string => enumWords(ApplicationStatusSchema, status) || "Unknown";

interface Stepped {
  phase: ApplicationPhase;
  wave: number;
}

/** Whether something is applied before or after something else. */
export const hasSteps = (items: Stepped[]): boolean => items.some((each) => each.phase !== items[0]?.phase || each.wave !== items[0]?.wave);

/** The phase and the wave within it in which something is applied. */
export const stepWords = ({ phase, wave }: Stepped): string => `${enumWords(ApplicationPhaseSchema, phase)}${wave ? `, wave ${wave}` : ""}`;

/** Steps in their order. */
export const byStep = (a: Stepped, b: Stepped): number => a.phase - b.phase || a.wave - b.wave;

/** Why a container is as it is, in one sentence. */
export function why(container: Container): string {
  const program = container.programs.find((each) => each.exitCode || each.reason);
  const exit = program?.exitCode ? ` ${program.name || "The program"} ended last with code ${program.exitCode}${program.exitReason ? ` (${program.exitReason})` : ""}.` : "";
  const said = container.message || container.conditions.find((each) => each.status === ConditionStatus.FALSE && each.message)?.message || "";
  const sentence = [container.reason, said].filter(Boolean).join(": ");
  return sentence ? `${sentence}${/[.!?]$/.test(sentence) ? "" : "."}${exit}` : exit.trim();
}

// Reasons of pods that wait for somebody, and not for time.
const STUCK = /BackOff|^Err|Error$|Invalid|Failed|Unschedulable|Exceeded|NeverPull|Deadline/;

const UNDER_WAY = new Set([ContainerStatus.PENDING, ContainerStatus.RUNNING]);

/** The tone of a container: one that waits for an image that cannot be had is as bad as one that has failed. */
export const toneOf = (container: Container): Tone =>
  UNDER_WAY.has(container.status) && STUCK.test(container.reason) ? "bad" : containerTone(container.status);

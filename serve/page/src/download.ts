/** Files to keep: answers as CSV or FHIR, and the page on paper. */

import type { Answer } from "./api";

const COLUMNS = [
  "recording", "task", "question", "status", "answer", "label", "value", "unit", "low", "high", "coverage_guaranteed", "probabilities", "measured", "data",
] as const;

export interface Row {
  recording: string;
  answer: Answer;
  data: string;
}

/** Answers as a table with commas (RFC 4180). */
export function csvOf(rows: Row[]): string {
  const lines = rows.map(({ recording, answer, data }) => {
    const measured = answer.measured
      .filter((one) => one.value != null)
      .map(({ label, part, value, unit }) => `${label}${part ? `, ${part}` : ""} ${value} ${unit}`.trim())
      .join("; ");
    const probabilities = Object.entries(answer.probabilities)
      .map(([label, probability]) => `${label} ${probability.toFixed(4)}`)
      .join("; ");
    const { task, question, status, text, label, value, unit, low, high, coverage_guaranteed } = answer;
    return [recording, task, question, status, text, label, value, unit, low, high, coverage_guaranteed, probabilities, measured, data];
  });
  return [[...COLUMNS], ...lines].map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** A value of a table. Text that a spreadsheet would take for a formula begins with an apostrophe. */
export function cell(value: unknown): string {
  if (value == null) return "";
  if (typeof value !== "string") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Offers a text as a file. */
export function save(name: string, text: string, type: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** "walk.mot" -> "walk-answers.csv". */
export function nameOf(recording: string, ending: string): string {
  return `${recording.replace(/\.[^.]*$/, "") || "recording"}-answers.${ending}`;
}

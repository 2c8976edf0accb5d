/** Names of tasks for people. */

const ACRONYMS = /\b(tug|fsst)\b/g;

/** "fsst_time" -> "FSST time". */
export function taskTitle(name: string): string {
  const words = name.replaceAll("_", " ").replace(ACRONYMS, (word) => word.toUpperCase());
  return words.charAt(0).toUpperCase() + words.slice(1);
}

// Owns: every sentence that the pages show, in one table. Must never be passed by: no other file of the pages holds visible text.
import type { PlanSummary, ReadingProgress, ShardProgress } from "../../src/protocol/qa";

const locale = document.documentElement.lang === "" ? "en" : document.documentElement.lang;
const whole = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat(locale, { minimumFractionDigits: 1, maximumFractionDigits: 1 });

const number = (value: number): string => whole.format(value);
const files = (count: number): string => (count === 1 ? "1 file" : `${number(count)} files`);
const tokens = (count: number): string => (count === 1 ? "1 token" : `${number(count)} tokens`);
const percent = (part: number, all: number): string => `${number(all > 0 ? Math.floor((100 * part) / all) : 0)} %`;

function duration(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  if (seconds < 60) return `${tenths.format(seconds)} s`;
  return `${number(Math.floor(seconds / 60))} min ${number(Math.floor(seconds % 60))} s`;
}

function timeLeft(seconds: number): string {
  if (seconds < 90) return `${number(Math.max(1, Math.ceil(seconds)))} s left`;
  return `${number(Math.ceil(seconds / 60))} min left`;
}

export const strings = {
  conversation: "Conversation",
  questionLabel: "Your question about this folder",
  questionPlaceholder: "Where is … defined?",
  questionPlaceholderNext: "Ask another question",
  ask: "Ask (Enter)",
  stop: "Stop",
  keys: "Enter asks, Shift+Enter starts a new line",
  questionEmpty: "Write a question first.",
  questionTooLong: (characters: number, limit: number): string =>
    `The question has ${number(characters)} characters; at most ${number(limit)} are possible. Shorten it.`,
  everyFile: "Ask every file",
  everyFileHint:
    "Reads every file, part by part, however large the folder is, and puts together what was found. Takes longer the first time.",
  oneAtATime: "One question at a time: wait for this answer, or stop it.",
  toEnd: "Go to the end",
  showAll: "Show all of the question",
  showLess: "Show less",

  title: "Ask about this folder",
  abilities: "Embedded model: finds, quotes and explains code; it does not design or write it",
  examples: "For example",
  noFolder: "Open a folder, and ask anything about its code. Everything stays on this machine.",
  openFolder: "Open Folder",
  restricted: "Restricted Mode: nothing is read until you ask. A question reads the folder to answer it.",
  manageTrust: "Manage trust",

  coverage: (plan: PlanSummary): string => `read ${number(plan.readFiles)} of ${files(plan.totalFiles)}`,
  nothingRead: "nothing read yet",
  readingAhead: (reading: ReadingProgress): string =>
    [
      `reading ahead: ${number(reading.position)} of ${tokens(reading.promptTokens)}`,
      ...(reading.tokensPerSecond > 0
        ? [`${number(reading.tokensPerSecond)} tok/s`, timeLeft(reading.secondsLeft)]
        : []),
    ].join(" · "),
  changedFiles: (count: number): string =>
    count === 1 ? "1 file changed since the model read it" : `${number(count)} files changed since the model read them`,
  windowFit: ({ outlinedFiles, leftOutFiles, overTokens }: PlanSummary): string => {
    const parts = [
      ...(outlinedFiles > 0 ? [`${files(outlinedFiles)} outlined`] : []),
      ...(leftOutFiles > 0 ? [`${files(leftOutFiles)} not read`] : []),
    ];
    const size = overTokens > 0 ? `is about ${tokens(overTokens)} larger than` : "does not all fit into";
    return `This folder ${size} the model's window: ${parts.join(", ")}.`;
  },
  stopReading: "Stop",
  outlineFolders: "Outline more",
  showContext: "Choose files",
  scope: (folders: readonly string[]): string =>
    folders.length <= 3 ? `in ${folders.join(", ")}` : `in ${number(folders.length)} chosen folders`,
  chooseFolders: "Choose folders",
  showFiles: "What was read",

  waiting: "Starting",
  scanning: (count: number): string =>
    count === 0 ? "Looking through the folder" : `Looking through the folder · ${files(count)}`,
  loading: "Loading the model",
  planning: "Choosing what to read",
  reading: (
    position: number,
    promptTokens: number,
    speed: number,
    secondsLeft: number,
    shards: ShardProgress | null = null,
  ): string =>
    [
      shards === null
        ? `Reading repository ${percent(position, promptTokens)}`
        : `Reading part ${number(shards.first)} of ${number(shards.total)} · ${percent(position, promptTokens)}`,
      `${number(position)} of ${tokens(promptTokens)}`,
      ...(speed > 0 ? [`${number(speed)} tok/s`, timeLeft(secondsLeft)] : []),
    ].join(" · "),
  readingStart: "Reading repository",
  askingParts: ({ first, last, total, asked, found }: ShardProgress): string =>
    [
      first === last
        ? `Asking part ${number(first)} of ${number(total)}`
        : `Asking parts ${number(first)}–${number(last)} of ${number(total)}`,
      ...(asked > 0 ? [`${number(found)} of ${number(asked)} had an answer`] : []),
    ].join(" · "),
  reasoningNow: "Reasoning",
  answering: "Answering",
  checking: "Checking the quotes against the files",
  progressLabel: "Repository read",

  reasoningRunning: (milliseconds: number, count: number): string =>
    `Reasoning · ${duration(milliseconds)} · ${tokens(count)}`,
  reasoningEnded: (milliseconds: number, count: number): string =>
    `Reasoned for ${duration(milliseconds)} · ${tokens(count)}`,

  place: (path: string, startLine: number, endLine: number): string => {
    if (startLine === 0) return path;
    return endLine > startLine ? `${path}:${startLine}–${endLine}` : `${path}:${startLine}`;
  },
  openPlace: (place: string): string => `Open ${place}`,
  verified: "found there",
  corrected: "corrected",
  relocated: (named: string): string => (named === "" ? "place corrected" : `corrected, the model said ${named}`),
  notFound: "not found in what was read",
  earlier: (path: string): string => `This stood in an earlier copy of ${path}; it has changed since.`,
  stale: "the file has changed since",
  otherPlaces: (count: number): string =>
    count === 1 ? "stands in 1 more place" : `stands in ${number(count)} more places`,
  copy: "Copy",
  copied: "Copied",
  linkTo: (text: string, host: string): string => (text === host ? host : `${text} (${host})`),
  openLink: (address: string): string => `Open ${address} in the browser, after asking`,
  hiddenCharacter: (code: number): string => `U+${code.toString(16).toUpperCase().padStart(4, "0")}`,

  refusalPlace: " stands in ",
  refusalAlso: "also in ",
  refusalRead: ", which was read",
  refusalUnread: ", which was not read",
  refusalReadIt: "Read it",
  refusalNowhere: (count: number | null): string =>
    count === null ? " stands nowhere in this folder." : ` stands nowhere in the ${files(count)} of this folder.`,

  stopped: "Stopped.",
  tokenLimit: "The answer was cut off at the token limit.",
  repetition: "The model began to repeat itself, so it was stopped.",
  contextFull: "The model's context is full. Start a new conversation, or choose fewer folders.",
  restartEngine: "Restart engine",
  onProcessor: "The GPU failed again, so the model runs on the processor now. Restart the engine to try the GPU again.",
  showLog: "Show log",

  reused: (reusedTokens: number, promptTokens: number): string => `${percent(reusedTokens, promptTokens)} remembered`,
  readSpeed: (speed: number): string => `${number(speed)} tok/s read`,
  writeSpeed: (speed: number): string => `${number(speed)} tok/s written`,
  firstToken: (milliseconds: number): string => `first token after ${duration(milliseconds)}`,
  quotes: (found: number, corrected: number, earlier: number, missing: number): string =>
    [
      ...(found > 0 ? [`${number(found)} found`] : []),
      ...(corrected > 0 ? [`${number(corrected)} corrected`] : []),
      ...(earlier > 0 ? [`${number(earlier)} from an earlier copy`] : []),
      ...(missing > 0 ? [`${number(missing)} not found`] : []),
    ].join(", "),
  checkedQuotes: (summary: string): string => `quotes: ${summary}`,
  answerComplete: (summary: string): string =>
    summary === "" ? "The answer is complete." : `The answer is complete. Quotes: ${summary}.`,
} as const;

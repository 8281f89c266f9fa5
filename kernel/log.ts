/** The daemon's log on stderr: containerd's logfmt lines, or JSON by pino. One writer, on the main thread; workers send their lines here. */
import { writeSync } from 'node:fs';
import pino from 'pino';

export type Level = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'panic';
const rank = { trace: 10, debug: 20, info: 30, warn: 40, error: 50, fatal: 60, panic: 60 } as const;
/** containerd writes logrus' names. */
const shown = {
  trace: 'trace',
  debug: 'debug',
  info: 'info',
  warn: 'warning',
  error: 'error',
  fatal: 'fatal',
  panic: 'panic',
} as const;

export interface Logger {
  write(level: Level, message: string, fields?: Readonly<Record<string, unknown>>): void;
  enabled(level: Level): boolean;
}

export interface AdjustableLogger extends Logger {
  setLevel(level: Level): void;
}

export function createLogger(level: Level, format: 'text' | 'json'): AdjustableLogger {
  let threshold: number = rank[level];
  const setLevel = (next: Level): void => {
    threshold = rank[next];
  };
  const enabled = (each: Level) => rank[each] >= threshold;
  if (format === 'json') {
    const json = pino(
      {
        level: 'trace',
        base: null,
        timestamp: pino.stdTimeFunctions.isoTime,
        messageKey: 'msg',
        formatters: { level: (label) => ({ level: label }) },
      },
      pino.destination({ dest: 2, sync: true }),
    );
    return {
      enabled,
      setLevel,
      write: (each, message, fields) => {
        if (enabled(each)) json[each === 'panic' ? 'fatal' : each](fields ?? {}, message);
      },
    };
  }
  return {
    enabled,
    setLevel,
    write: (each, message, fields) => {
      if (!enabled(each)) return;
      const rest = Object.entries(fields ?? {})
        .filter(([, value]) => value !== undefined)
        .map(([key, value]) => ` ${key}=${quoted(String(value))}`);
      emit(`time="${new Date().toISOString()}" level=${shown[each]} msg=${quoted(message)}${rest.join('')}\n`);
    },
  };
}

/** Straight to the descriptor: a line must be out before a signal ends the process. A reader that is slow or gone is not worth dying for. */
function emit(line: string): void {
  try {
    writeSync(2, line);
  } catch {
    // EAGAIN on a full pipe, EPIPE on a closed one.
  }
}

/** As logrus quotes: bare when it is only word characters; control characters escaped, so that an image's bytes cannot write to the terminal. */
function quoted(text: string): string {
  return /^[\w.@/:+-]+$/.test(text)
    ? text
    : JSON.stringify(text).replace(
        /[\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
        (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
      );
}

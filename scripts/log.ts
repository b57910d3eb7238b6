import pino, { type Logger } from 'pino'

export interface LogOptions {
  readonly logLevel: string
  readonly logFile?: string
}

export type Log = Logger & {
  /** After somebody has moved the file away. */
  reopen(): void
}

/** JSON, a line each; on a terminal a text line each. */
export function createLog({ logLevel, logFile, json }: LogOptions & { readonly json: boolean }): Log {
  const settings = {
    level: logLevel,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
  }
  if (logFile === undefined && process.stdout.isTTY && !json)
    return Object.assign(pino(settings, { write: (line: string) => process.stdout.write(text(line)) }), {
      reopen: () => undefined,
    })
  const destination = pino.destination({ dest: logFile ?? 1, sync: true, mkdir: true })
  return Object.assign(pino(settings, destination), {
    reopen: () => {
      if (logFile !== undefined) destination.reopen()
    },
  })
}

function text(line: string): string {
  const { level, time, msg, ...rest } = JSON.parse(line) as Record<string, unknown>
  const fields = Object.entries(rest).map(
    ([key, value]) => ` ${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  )
  return `${time} ${String(level).padEnd(5)} ${msg}${fields.join('')}\n`
}

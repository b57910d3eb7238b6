import { type ChildProcess, spawn } from 'node:child_process'
import type { Role } from './roles.ts'

/** Processes by name, each with its role; one that is killed can be started again. */
export interface Actors {
  readonly names: readonly string[]
  start(name: string): void
  kill(name: string): Promise<void>
  freeze(name: string): void
  thaw(name: string): void
  /** Has them end by themselves, and waits for it. */
  end(names: readonly string[]): Promise<void>
  /** Kills all that are left. */
  close(): Promise<void>
  /** Whatever ended that nobody had ended, or not as it should. */
  readonly problems: readonly string[]
  /** The last that each has said. */
  said(): string
}

interface Actor {
  readonly role: Role
  child: ChildProcess | undefined
  /** It hears signals, or has ended before. */
  ready: Promise<void>
  ended: Promise<void>
  said: string
}

/** Seconds that a process may take to end by itself. */
const patience = 15

export function actors(script: string, url: string, roles: Readonly<Record<string, Role>>): Actors {
  const all = new Map<string, Actor>(
    Object.entries(roles).map(([name, role]) => [
      name,
      { role, child: undefined, ready: Promise.resolve(), ended: Promise.resolve(), said: '' },
    ]),
  )
  const problems: string[] = []
  const find = (name: string): Actor => {
    const actor = all.get(name)
    if (!actor) throw new Error(`there is no ${name}`)
    return actor
  }
  const start = (name: string): void => {
    const actor = find(name)
    if (actor.child) return
    const child = spawn(process.execPath, [script, JSON.stringify(actor.role), url], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    actor.child = child
    child.stderr?.on('data', (data) => {
      actor.said = `${actor.said}${data}`.slice(-2000)
    })
    actor.ready = new Promise((resolve) => {
      child.stdout?.once('data', () => resolve())
      child.once('exit', () => resolve())
    })
    actor.ended = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        if (actor.child === child) {
          actor.child = undefined
          problems.push(`${name} ended by itself, with ${code ?? signal}:\n${actor.said}`)
        } else if (signal !== 'SIGKILL' && code !== 0)
          problems.push(`${name} ended with ${code ?? signal}:\n${actor.said}`)
        resolve()
      })
    })
  }
  const release = (actor: Actor): ChildProcess | undefined => {
    const { child } = actor
    actor.child = undefined
    return child
  }
  const kill = async (name: string): Promise<void> => {
    const actor = find(name)
    release(actor)?.kill('SIGKILL')
    await actor.ended
  }
  const abandon = () => {
    for (const actor of all.values()) release(actor)?.kill('SIGKILL')
  }
  process.once('exit', abandon)
  return {
    names: [...all.keys()],
    problems,
    start,
    kill,
    async close() {
      process.removeListener('exit', abandon)
      await Promise.all([...all.keys()].map(kill))
    },
    freeze: (name) => void find(name).child?.kill('SIGSTOP'),
    thaw: (name) => void find(name).child?.kill('SIGCONT'),
    async end(names) {
      await Promise.all(
        names.map(async (name) => {
          const actor = find(name)
          const child = release(actor)
          if (!child) return
          await actor.ready
          child.kill('SIGTERM')
          const late = setTimeout(() => {
            problems.push(`${name} has not ended within ${patience} s of SIGTERM:\n${actor.said}`)
            child.kill('SIGKILL')
          }, patience * 1000)
          await actor.ended
          clearTimeout(late)
        }),
      )
    },
    said: () => [...all].map(([name, { said }]) => `${name}: ${said}`).join('\n'),
  }
}

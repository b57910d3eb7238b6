import type { QueueEvent } from '../consumer/batch.ts'
import { SkytoolsError } from '../errors.ts'
import type { MoverConfig } from './config.ts'

/** Where a batch comes from. */
export interface Origin {
  readonly source: string
  readonly queue: string
}

type Fields = Pick<QueueEvent, 'type' | 'extra1' | 'extra2' | 'extra3' | 'extra4'>

const fields = ['type', 'extra1', 'extra2', 'extra3', 'extra4'] as const

/** A pattern as a test: * stands for any text, ? for any character. */
export function glob(pattern: string): (text: string) => boolean {
  const source = pattern
    .replaceAll(/[.+^${}()|[\]\\]/g, String.raw`\$&`)
    .replaceAll('*', '.*')
    .replaceAll('?', '.')
  const expression = new RegExp(`^${source}$`, 'su')
  return (text) => expression.test(text)
}

export interface Router {
  /** Whether any event of that queue has a route. */
  takes(origin: Origin): boolean
  /** The destination queue; undefined: the event is left out.
   *
   * @throws NoRouteError (PQ061) no route fits, and `unmatched` is `error` */
  destination(origin: Origin, event: Fields): string | undefined
}

/** The routes of a configuration, ready to use. */
export function router({ routes, unmatched }: Pick<MoverConfig, 'routes' | 'unmatched'>): Router {
  const compiled = routes.map(({ source = '*', queue = '*', to, ...patterns }) => ({
    fitsSource: glob(source),
    fitsQueue: glob(queue),
    conditions: fields.flatMap((field) => {
      const pattern = patterns[field]
      return pattern === undefined ? [] : [{ field, fits: glob(pattern) }]
    }),
    to,
  }))
  const ofOrigin = ({ source, queue }: Origin) =>
    compiled.filter(({ fitsSource, fitsQueue }) => fitsSource(source) && fitsQueue(queue))
  return {
    takes: (origin) => ofOrigin(origin).length > 0,
    destination(origin, event) {
      const route = ofOrigin(origin).find(({ conditions }) =>
        conditions.every(({ field, fits }) => event[field] !== null && fits(event[field])),
      )
      if (route) return fill(route.to, origin, event)
      if (unmatched === 'drop') return undefined
      throw new SkytoolsError(
        'PQ061',
        `no route for an event of type ${event.type} from queue ${origin.queue} of ${origin.source}`,
        'add a route that fits all (only `to`), or set unmatched: drop',
      )
    },
  }
}

function fill(to: string, origin: Origin, event: Fields): string {
  return to.replaceAll(/\{(source|queue|type|extra[1-4])\}/g, (_, key: keyof Origin | keyof Fields) => {
    return key === 'source' || key === 'queue' ? origin[key] : (event[key] ?? '')
  })
}

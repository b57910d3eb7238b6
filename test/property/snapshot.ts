/** A txid_snapshot, read from its text form 'xmin:xmax:xip,xip'. */
export interface Snapshot {
  readonly xmax: bigint
  readonly running: ReadonlySet<bigint>
}

export function parseSnapshot(text: string): Snapshot {
  const [, xmax = '', running = ''] = text.split(':')
  return { xmax: BigInt(xmax), running: new Set(running === '' ? [] : running.split(',').map(BigInt)) }
}

export function sees(snapshot: Snapshot, txid: bigint): boolean {
  return txid < snapshot.xmax && !snapshot.running.has(txid)
}

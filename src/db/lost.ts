/** Whether an error tells of the connection rather than of what was asked for: the same may succeed on a new one. */
export function connectionLost(error: unknown): boolean {
  for (let at = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth += 1) {
    const code = String((at as { code?: unknown }).code ?? '')
    // Class 08; admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped is none of them; too_many_connections.
    if (/^(08...|57P0[123]|53300|ECONN.*|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENOTFOUND|EAI_AGAIN)$/.test(code)) return true
    if (/^(Connection terminated|timeout exceeded when trying to connect|Client has encountered)/.test(at.message))
      return true
  }
  return false
}

/** Whether only the order in which transactions met is to blame: a serialization failure or a deadlock. */
export function transient(error: unknown): boolean {
  return ['40001', '40P01'].includes(String((error as { code?: unknown } | undefined)?.code ?? ''))
}

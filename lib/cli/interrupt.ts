/** What an AbortSignal carries after Ctrl-C. A command that lets it through ends with exit code 130. */
export class Interrupted extends Error {
  constructor() {
    super('interrupted')
    this.name = 'Interrupted'
  }
}

/** An AbortSignal that Ctrl-C (or a polite kill) fires; it is in force until disposed. */
export interface InterruptSignal {
  readonly signal: AbortSignal
  dispose(): void
}

/**
 * The first Ctrl-C aborts `signal` and says `hint` on stderr, so that the command can save and leave; the second
 * leaves at once.
 */
export function onInterrupt(hint = 'stopping; once more to leave at once'): InterruptSignal {
  const controller = new AbortController()
  const handler = () => {
    if (controller.signal.aborted) process.exit(130)
    console.error(`\n${hint}`)
    controller.abort(new Interrupted())
  }
  process.on('SIGINT', handler)
  process.on('SIGTERM', handler)
  return {
    signal: controller.signal,
    dispose: () => {
      process.off('SIGINT', handler)
      process.off('SIGTERM', handler)
    },
  }
}

/** Where progress goes: a terminal gets one line that is rewritten, a pipe gets plain lines. */
export interface ProgressStream {
  isTTY?: boolean
  columns?: number
  write(text: string): unknown
}

export interface ProgressOptions {
  total: number
  /** Units that are done already, as after a resume. */
  done?: number
  label: string
  stream?: ProgressStream
  /** Milliseconds now; tests give their own clock. */
  now?: () => number
  /** Smallest time between two lines in a pipe, in milliseconds; the first and the last line always come. */
  interval?: number
}

/** Says how far a long piece of work is and how long the rest will take. */
export class Progress {
  readonly #options: Required<ProgressOptions>
  readonly #started: number
  #done: number
  #lastLine = Number.NEGATIVE_INFINITY

  constructor(options: ProgressOptions) {
    this.#options = { done: 0, stream: process.stderr, now: () => performance.now(), interval: 0, ...options }
    this.#started = this.#options.now()
    this.#done = this.#options.done
  }

  /** Seconds left, judged by the mean time of a unit so far; null before there is one. */
  get secondsLeft(): number | null {
    const { done, total, now } = this.#options
    const units = this.#done - done
    if (units <= 0) return null
    return ((now() - this.#started) / 1000 / units) * (total - this.#done)
  }

  /** @param total where it is known only now */
  update(done: number, details = '', total?: number): void {
    this.#done = done
    if (total !== undefined) this.#options.total = total
    this.#show(done, details)
  }

  #show(done: number, details: string): void {
    const { total, label, stream, now, interval } = this.#options
    const left = this.secondsLeft
    const time = left === null || done >= total ? '' : ` · ${formatDuration(left)} left`
    const line = `${label} ${done}/${total}${details && ` · ${details}`}${time}`
    if (stream.isTTY) {
      stream.write(`\r\u001b[2K${line.slice(0, (stream.columns ?? 80) - 1)}`)
    } else if (now() - this.#lastLine >= interval || done >= total) {
      this.#lastLine = now()
      stream.write(`${line}\n`)
    }
  }

  /** Leaves the terminal's line, so that what is printed next does not overwrite it. */
  finish(): void {
    const { stream, now } = this.#options
    const took = formatDuration((now() - this.#started) / 1000)
    if (stream.isTTY) stream.write(` · ${took}\n`)
  }
}

/** `5 s`, `3 min 20 s`, `2 h 5 min`. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  const minutes = Math.round(whole / 60)
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

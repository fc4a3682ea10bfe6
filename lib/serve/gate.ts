import { ApiError } from './api-error.ts'

/** Longest time, in seconds, that a client is asked to stay away. */
const longestWait = 60

/** Lets in as many completions as may be under way or wait for the engine; who comes beyond is sent away at once. */
export class Gate {
  readonly #limit: number
  #inside = 0
  /** Mean seconds that completions stay, the last ones counting most. */
  #stay = 1

  constructor(limit: number) {
    this.#limit = limit
  }

  get inside(): number {
    return this.#inside
  }

  /**
   * @returns what must be called when these completions are over
   * @throws ApiError 429 with Retry-After where they don't fit beside those inside, 400 where they never would
   */
  enter(completions: number): () => void {
    if (completions > this.#limit) {
      const message = `Expected at most ${this.#limit} completions in one request but received ${completions}`
      throw new ApiError(message, { status: 400, param: 'n' })
    }
    if (this.#inside + completions > this.#limit) {
      // As many seconds as it takes until this many have left, if all go on as they did.
      const wait = Math.ceil((this.#stay * completions) / this.#limit)
      throw new ApiError(`${this.#inside} completions are under way, and more are not taken: try again`, {
        status: 429,
        code: 'queue_full',
        headers: { 'Retry-After': String(Math.min(Math.max(wait, 1), longestWait)) },
      })
    }
    this.#inside += completions
    const entered = performance.now()
    let isOver = false
    return () => {
      if (isOver) return
      isOver = true
      this.#inside -= completions
      this.#stay += ((performance.now() - entered) / 1000 - this.#stay) / 8
    }
  }
}

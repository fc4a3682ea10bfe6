import type {
  NativeAbortToken,
  NativeGenerateRequest,
  NativePolicy,
  NativeTokensCallback,
} from '../native.ts'
import { runNative } from '../native-call.ts'
import {
  type Completion,
  type DecodeContext,
  inOrder,
  type TokenEvent,
  toCompletion,
  tokenStreamer,
} from './completion.ts'

export interface GenerateCall extends DecodeContext {
  requests: NativeGenerateRequest[]
  signal?: AbortSignal
  onToken?: (event: TokenEvent) => void
  onCompletion?: (completion: Completion) => void
}

/** Runs resolved requests; what had finished before an error rides on it as `completions`. */
export async function runGenerate(native: NativePolicy, call: GenerateCall): Promise<Completion[]> {
  const { requests, endTokenIds, onCompletion } = call
  const finished: Completion[] = []
  try {
    await guarded(call, (abort, onTokens, run) =>
      native.generate({
        requests,
        endTokens: Int32Array.from(endTokenIds),
        abort,
        onCompletion: (found) => {
          const completion = toCompletion(found, requests[found.requestIndex]!.tokens, call)
          finished.push(completion)
          if (onCompletion) run(() => onCompletion(completion))
        },
        onTokens,
      }),
    )
  } catch (error) {
    throw attach(error, inOrder(finished))
  }
  return inOrder(finished)
}

type GuardedCall = DecodeContext & Pick<GenerateCall, 'signal' | 'onToken'>

/**
 * Runs a native call that hands its tokens to the caller as they come.
 * @param start gets the abort token, what takes tokens (null where nobody does), and what runs a callback of the caller's
 * @throws what a callback throws, after the work has stopped
 */
export async function guarded<T>(
  call: GuardedCall,
  start: (
    abort: NativeAbortToken | null,
    onTokens: NativeTokensCallback | null,
    run: (callback: () => void) => void,
  ) => Promise<T>,
): Promise<T> {
  const guard = new CallbackGuard(call.signal)
  const run = (callback: () => void) => guard.run(callback)
  const deliver = call.onToken && tokenStreamer(call, call.onToken)
  try {
    const result = await runNative(
      (abort) => start(abort, deliver ? (...batch) => run(() => deliver(...batch)) : null, run),
      guard.signal,
    )
    // A callback may have thrown at the very end, when there was nothing left to stop.
    if (guard.signal.aborted && !call.signal?.aborted) throw guard.signal.reason
    return result
  } finally {
    guard.release()
  }
}

/** Stops the work when a callback of the caller throws, and when the caller's signal fires. */
class CallbackGuard {
  readonly #controller = new AbortController()
  readonly #source: AbortSignal | undefined
  readonly #forward = () => this.#controller.abort(this.#source?.reason)

  constructor(source: AbortSignal | undefined) {
    this.#source = source
    if (source?.aborted) this.#forward()
    else source?.addEventListener('abort', this.#forward, { once: true })
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  run(callback: () => void): void {
    if (this.signal.aborted) return
    try {
      callback()
    } catch (error) {
      this.#controller.abort(error)
    }
  }

  release(): void {
    this.#source?.removeEventListener('abort', this.#forward)
  }
}

/** A reason may be anything: a frozen object or a string can't carry more. */
function attach(error: unknown, completions: Completion[]): unknown {
  if (typeof error === 'object' && error !== null && Object.isExtensible(error)) {
    Object.defineProperty(error, 'completions', { value: completions, configurable: true, writable: true })
  }
  return error
}

import { SsrlError, type SsrlErrorCode } from './errors.ts'
import { loadNative, type NativeAbortToken } from './native.ts'

/** What native code throws and rejects with: a plain error whose `code` is one of ours, or ABORTED. */
interface NativeError extends Error {
  code?: string
}

const abortedCode = 'ABORTED'

/** An error of the addon as an SsrlError with the stack of the call; other values come back as they are. */
export function toSsrlError(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof SsrlError) return error
  const { code, message, stack } = error as NativeError
  if (code === undefined || !codes.has(code)) return error
  const wrapped = new SsrlError(code as SsrlErrorCode, message)
  // The native error was made at the call, before the work; its frames lead to the user's own code.
  const frames = stack?.split('\n').filter((line) => /^\s+at /.test(line))
  if (frames && frames.length > 0) wrapped.stack = [`${wrapped.name}: ${message}`, ...frames].join('\n')
  return wrapped
}

const codes = new Set<string>([
  'ERR_INVALID_ARG',
  'ERR_MODEL_FORMAT',
  'ERR_OUT_OF_MEMORY',
  'ERR_NON_FINITE',
  'ERR_NO_DEVICE',
  'ERR_IO',
  'ERR_DISPOSED',
  'ERR_INTERNAL',
] satisfies SsrlErrorCode[])

/** Runs a call into the addon; what it throws becomes an SsrlError. */
export function callNative<T>(call: () => T): T {
  try {
    return call()
  } catch (error) {
    throw toSsrlError(error)
  }
}

/**
 * Runs an async call into the addon, with a token that the signal raises.
 * @param call gets the token, or null when there is no signal
 * @throws SsrlError, or the signal's reason once it has fired
 */
export async function runNative<T>(
  call: (abort: NativeAbortToken | null) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  signal?.throwIfAborted()
  const token = signal ? loadNative().createAbortToken() : null
  const abort = () => token?.abort()
  signal?.addEventListener('abort', abort, { once: true })
  try {
    return await call(token)
  } catch (error) {
    if (signal?.aborted && (error as NativeError)?.code === abortedCode) throw signal.reason
    throw toSsrlError(error)
  } finally {
    signal?.removeEventListener('abort', abort)
  }
}

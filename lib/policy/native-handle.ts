import { SsrlError } from '../errors.ts'
import type { NativePolicy } from '../native.ts'

/** The native policy behind each Policy; null once it is disposed of. Kept apart, so that it is no public property. */
const handles = new WeakMap<object, NativePolicy | null>()

export function setNativePolicy(policy: object, native: NativePolicy | null): void {
  handles.set(policy, native)
}

/**
 * The native policy of a Policy.
 * @throws SsrlError ERR_INVALID_ARG for anything that is no Policy, ERR_DISPOSED after its dispose()
 */
export function nativePolicyOf(policy: unknown): NativePolicy {
  const native = typeof policy === 'object' && policy !== null ? handles.get(policy) : undefined
  if (native) return native
  if (native === null) throw new SsrlError('ERR_DISPOSED', 'The policy has been disposed of')
  throw new SsrlError('ERR_INVALID_ARG', `Expected a Policy but received ${describe(policy)}`)
}

function describe(value: unknown): string {
  if (typeof value !== 'object' || value === null) return String(value)
  return `an object of class ${value.constructor?.name ?? 'Object'}`
}

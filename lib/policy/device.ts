import { SsrlError } from '../errors.ts'
import { loadNative, type NativeCuda } from '../native.ts'
import { callNative } from '../native-call.ts'

/** Where a policy computes. */
export type DeviceName = 'cpu' | `cuda:${number}` | `cuda-emulated:${number}`

/** What can be asked for; 'cuda' is 'cuda:0'. 'cuda-emulated' is in test builds only. */
export type DeviceChoice = 'auto' | 'cpu' | 'cuda' | 'cuda-emulated' | DeviceName

/** What a text that names a device looks like. */
export const devicePattern = /^(?:auto|cpu|(cuda(?:-emulated)?)(?::(\d{1,4}))?)$/

/**
 * The device that a name means on this machine. 'auto' is the first CUDA device that can be used, else the CPU.
 * @throws SsrlError ERR_NO_DEVICE with what is missing: the build, the driver, the device or its compute capability
 */
export function chooseDevice(name: string): DeviceName {
  const match = devicePattern.exec(name)
  if (!match) {
    throw new SsrlError(
      'ERR_NO_DEVICE',
      `Expected 'auto', 'cpu', 'cuda' or 'cuda:n' for device (or SSRL_DEVICE) but received '${name}'`,
    )
  }
  if (name === 'cpu') return 'cpu'
  const cuda = callNative(() => loadNative().cuda())
  if (name === 'auto') return firstUsable(cuda) ?? 'cpu'
  const [, kind, digits = '0'] = match
  const index = Number(digits)
  // Whether this is a build with emulated devices is for the addon to say.
  const missing = kind === 'cuda' ? whatIsMissing(cuda, index) : null
  if (missing !== null) throw new SsrlError('ERR_NO_DEVICE', missing)
  return `${kind as 'cuda'}:${index}`
}

/** The device that 'auto' takes, if it is no CPU. */
export function firstUsable(cuda: NativeCuda): DeviceName | null {
  const index = cuda.missing === null ? cuda.devices.findIndex(({ missing }) => missing === null) : -1
  return index < 0 ? null : `cuda:${index}`
}

function whatIsMissing({ missing, devices }: NativeCuda, index: number): string | null {
  if (missing !== null) return missing
  if (index < devices.length) return devices[index]!.missing
  const names = devices.map(({ name }, i) => `'cuda:${i}' (${name})`)
  return `Expected one of the devices that are there, ${names.join(', ')}, but received 'cuda:${index}'`
}

import { existsSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { isMainThread } from 'node:worker_threads'
import bindings from 'bindings'
import { SsrlError } from './errors.ts'

import type { NativeAddon, NativeEmulation } from './native-types.ts'

export type * from './native-types.ts'

const packageRoot = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
let loaded: NativeAddon | undefined
let emulated: (NativeAddon & { emulation: NativeEmulation }) | undefined

/**
 * The addon, loaded on first use (so that `ssrl --help` or a reward function needs none).
 * @throws ERR_NATIVE_LOAD with the command that builds it, when it is missing or can't be loaded.
 */
export function loadNative(): NativeAddon {
  if (!loaded) {
    // Tests of whole policies on emulated devices take the test build's addon in place of this one.
    const addon = process.env.SSRL_EMULATED === '1' ? loadEmulated() : requireAddon()
    // The compute thread must have ended before the process takes its libraries apart. Worker threads clean up by
    // themselves, and share the thread with the others.
    if (isMainThread) process.on('exit', () => addon.shutdown())
    loaded = addon
  }
  return loaded
}

/**
 * The addon of test builds, whose device 'cuda-emulated' runs the CUDA kernels on the CPU.
 * @throws ERR_NO_DEVICE where it has not been built.
 */
export function loadEmulated(): NativeAddon & { emulation: NativeEmulation } {
  if (!emulated) {
    if (!existsSync(path.join(packageRoot, 'build', 'Release', 'ssrl-emulated.node'))) {
      throw new SsrlError(
        'ERR_NO_DEVICE',
        "The device 'cuda-emulated' is in test builds only: node scripts/build-cuda.mjs emulated",
      )
    }
    const addon = requireAddon('ssrl-emulated.node') as NativeAddon & { emulation: NativeEmulation }
    if (isMainThread) process.on('exit', () => addon.shutdown())
    emulated = addon
  }
  return emulated
}

function requireAddon(file = 'ssrl.node'): NativeAddon {
  // OpenMP's threads spin for milliseconds between two kernels unless told otherwise, which takes the cores away from
  // everything else on the machine, the event loop included (a loaded machine was ten times slower).
  process.env.GOMP_SPINCOUNT ??= '2000'
  try {
    return bindings({ bindings: file, module_root: packageRoot })
  } catch (error) {
    // A setting that the addon refuses (SSRL_CPU) is no reason to build it again.
    if (error instanceof Error && 'code' in error && error.code === 'ERR_INVALID_ARG') {
      throw new SsrlError('ERR_INVALID_ARG', error.message)
    }
    const reason = error instanceof Error ? error.message.split('\n')[0] : String(error)
    throw new SsrlError(
      'ERR_NATIVE_LOAD',
      `The native addon can't be loaded: ${reason} This command installs what is missing and builds it: ${setupCommand()}`,
      { cause: error },
    )
  }
}

/** The one command that builds the addon, for the folder that the process runs in. */
export function setupCommand(): string {
  if (existsSync(path.join(packageRoot, 'package-lock.json'))) return 'npm run setup'
  const relative = path.relative(process.cwd(), packageRoot)
  return `bash ${path.join(relative.startsWith('..') ? packageRoot : relative, 'scripts', 'setup.sh')}`
}

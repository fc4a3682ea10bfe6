/** Which device is taken, what happens when its memory runs out or it is lost, and what the emulation finds out. */

import { execa } from 'execa'
import { type ModelConfig, Policy, SsrlError } from '../../lib/index.ts'
import { loadEmulated } from '../../lib/native.ts'
import { chooseDevice } from '../../lib/policy/device.ts'
import { someTokens } from '../helpers/byte-policy.ts'
import { testEmulated } from '../helpers/emulated-process.ts'
import { plainLlama } from '../helpers/model-config.ts'

const tinyConfig: ModelConfig = {
  ...plainLlama,
  hiddenSize: 36,
  intermediateSize: 58,
  numLayers: 2,
  numHeads: 6,
  numKvHeads: 2,
  headDim: 10,
  vocabSize: 131,
  maxPositions: 256,
}
const emulation = () => loadEmulated().emulation
const initialize = (device: 'cpu' | 'cuda:0' | 'cuda:1') =>
  Policy.initialize(tinyConfig, { seed: 3, device, dtype: 'f32' })
const prompt = { tokens: someTokens(9, 1, tinyConfig.vocabSize), maxNewTokens: 3, ignoreEnd: true }

testEmulated("'cuda' is the first device, 'auto' the first that can be used", async (t) => {
  t.teardown(() => emulation().setCapability(0, 8, 0))
  t.is(chooseDevice('cuda'), 'cuda:0')
  t.is(chooseDevice('cuda:1'), 'cuda:1')
  t.is(chooseDevice('auto'), 'cuda:0')
  t.is(chooseDevice('cpu'), 'cpu')
  emulation().setCapability(0, 7, 5)
  t.is(chooseDevice('auto'), 'cuda:1')
})

testEmulated("'auto' is the CPU where there is no driver or no device", (t) => {
  t.teardown(() => emulation().hideDevices(''))
  for (const reason of ['driver', 'device'] as const) {
    emulation().hideDevices(reason)
    t.is(chooseDevice('auto'), 'cpu')
  }
})

testEmulated(
  'heads that need more shared memory than a device has are ERR_NO_DEVICE with both numbers, and bf16 fits',
  async (t) => {
    t.teardown(() => emulation().setSharedMemory(0, 163 << 10))
    emulation().setSharedMemory(0, 99 << 10)
    const config = { ...tinyConfig, numHeads: 2, numKvHeads: 1, headDim: 128 }
    const run = async (dtype: 'f32' | 'bf16') => {
      await using policy = await Policy.initialize(config, { seed: 3, device: 'cuda:0', dtype })
      return (await policy.generate([prompt])).length
    }
    const error = await t.throwsAsync(run('f32'), { instanceOf: SsrlError })
    t.is((error as SsrlError).code, 'ERR_NO_DEVICE')
    t.regex(
      error!.message,
      /Expected a CUDA device with \d{6} bytes of shared memory .* 101376: take dtype 'bf16'/,
    )
    t.is(await run('bf16'), 1)
    emulation().setSharedMemory(0, 163 << 10)
    t.is(await run('f32'), 1)
  },
)

testEmulated('a device that is not there is ERR_NO_DEVICE and says what is missing', (t) => {
  t.teardown(() => {
    emulation().hideDevices('')
    emulation().setCapability(1, 8, 0)
  })
  const refusal = (name: string) => {
    const error = t.throws(() => chooseDevice(name), { instanceOf: SsrlError })
    t.is((error as SsrlError).code, 'ERR_NO_DEVICE')
    return error!.message
  }
  t.regex(refusal('cuda:7'), /'cuda:0' \(emulated device 0\), 'cuda:1' .* received 'cuda:7'/)
  emulation().setCapability(1, 7, 5)
  t.regex(refusal('cuda:1'), /compute capability 8\.0 or newer but emulated device 1 has 7\.5/)
  emulation().hideDevices('driver')
  t.regex(refusal('cuda'), /no NVIDIA driver, or it is older.*take device 'cpu'/)
  emulation().hideDevices('device')
  t.regex(refusal('cuda'), /finds no device.*take device 'cpu'/)
  t.regex(refusal('tpu'), /Expected 'auto', 'cpu', 'cuda' or 'cuda:n'.*'tpu'/)
})

testEmulated(
  'weights that do not fit are ERR_OUT_OF_MEMORY with need and rest, and what is there lives on',
  async (t) => {
    t.teardown(() => emulation().setDeviceMemory(0, 4 * 2 ** 30))
    await using policy = await initialize('cuda:0')
    const before = await policy.generate([prompt], { seed: 1 })
    emulation().setDeviceMemory(0, 2 ** 20)
    const error = await t.throwsAsync(initialize('cuda:0'), { instanceOf: SsrlError })
    t.is((error as SsrlError).code, 'ERR_OUT_OF_MEMORY')
    t.regex(error!.message, /Expected \d+ bytes on the device 'cuda:0' but \d+ of 1048576 are free/)
    emulation().setDeviceMemory(0, 4 * 2 ** 30)
    const again = await policy.generate([prompt], { seed: 1 })
    t.deepEqual(again[0]!.logProbs, before[0]!.logProbs)
  },
)

testEmulated(
  'memory that runs out in the middle of a call fails the call, and the policy goes on',
  async (t) => {
    t.teardown(() => emulation().setDeviceMemory(1, 4 * 2 ** 30))
    await using policy = await initialize('cuda:1')
    emulation().setDeviceMemory(1, 1)
    const error = await t.throwsAsync(policy.score([prompt.tokens]), { instanceOf: SsrlError })
    t.is((error as SsrlError).code, 'ERR_OUT_OF_MEMORY')
    await t.throwsAsync(policy.generate([prompt], { seed: 1 }), { code: 'ERR_OUT_OF_MEMORY' })
    emulation().setDeviceMemory(1, 4 * 2 ** 30)
    t.is((await policy.generate([prompt], { seed: 1 }))[0]!.tokens.length, 3)
  },
)

testEmulated('policies on two devices and the CPU give the same tokens', async (t) => {
  const policies = await Promise.all([initialize('cpu'), initialize('cuda:0'), initialize('cuda:1')])
  t.deepEqual(
    policies.map(({ device }) => device),
    ['cpu', 'cuda:0', 'cuda:1'],
  )
  const drawn = await Promise.all(policies.map((policy) => policy.generate([prompt], { seed: 5 })))
  for (const [completion] of drawn) t.deepEqual(completion!.tokens, drawn[0]![0]!.tokens)
  t.deepEqual(drawn[1]![0]!.logProbs, drawn[2]![0]!.logProbs)
  await Promise.all(policies.map((policy) => policy.dispose()))
})

testEmulated('a decode step waits once, and what it sends does not grow with the layers', async (t) => {
  const traffic = async (numLayers: number) => {
    const config = { ...tinyConfig, numLayers }
    await using policy = await Policy.initialize(config, { seed: 3, device: 'cuda:0', dtype: 'f32' })
    const requests = [4, 9, 30].map((length) => ({ tokens: someTokens(length, length, config.vocabSize) }))
    const run = async (maxNewTokens: number) => {
      emulation().takeTraffic()
      await policy.generate(requests, { seed: 1, maxNewTokens, ignoreEnd: true })
      return emulation().takeTraffic()
    }
    await run(4)
    const [few, many] = [await run(4), await run(10)]
    return {
      waits: (many.waits - few.waits) / 6,
      toHost: (many.toHost - few.toHost) / 6,
      toDevice: (many.toDevice - few.toDevice) / 6,
      launches: (many.launches - few.launches) / 6,
    }
  }
  const [two, five] = [await traffic(2), await traffic(5)]
  t.is(two.waits, 1)
  t.is(two.toHost, 1)
  t.deepEqual([five.waits, five.toHost, five.toDevice], [two.waits, two.toHost, two.toDevice])
  t.true(five.launches > 2 * two.launches)
  t.log(`a step of 2 layers: ${JSON.stringify(two)}`)
})

testEmulated('a kernel that is given host memory is a fault', (t) => {
  t.throws(() => emulation().launchOnHost(), { message: /address of host memory/ })
})

testEmulated('a host that touches device memory is stopped with a report', async (t) => {
  const script = "import { loadEmulated } from './lib/native.ts'; loadEmulated().emulation.touchDevice()"
  const child = await execa('node', ['--import=tsx', '--input-type=module', '-e', script], { reject: false })
  t.is(child.signal, 'SIGSEGV')
  t.regex(child.stderr, /Device memory of the emulated CUDA device 0 was touched by the host/)
})

// Last: the device stays lost for the process.
testEmulated('a lost device is an error of every later call on it, and of nothing else', async (t) => {
  const lost = await initialize('cuda:1')
  await using other = await initialize('cuda:0')
  await using onCpu = await initialize('cpu')
  emulation().loseDevice(1)
  for (const call of [() => lost.generate([prompt], { seed: 1 }), () => lost.score([prompt.tokens])]) {
    const error = await t.throwsAsync(call(), { instanceOf: SsrlError })
    t.is((error as SsrlError).code, 'ERR_NO_DEVICE')
    t.regex(error!.message, /'cuda:1' was lost .*an illegal memory access.*start the process again/)
  }
  await t.throwsAsync(initialize('cuda:1'), { code: 'ERR_NO_DEVICE', message: /an illegal memory access/ })
  t.is((await other.generate([prompt], { seed: 1 }))[0]!.tokens.length, 3)
  t.is((await onCpu.generate([prompt], { seed: 1 }))[0]!.tokens.length, 3)
  await lost.dispose()
})

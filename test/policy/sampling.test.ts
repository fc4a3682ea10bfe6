import test from 'ava'
import fc from 'fast-check'
import {
  nativeSampling,
  requestSeed,
  resolveSampling,
  resolveSeed,
  samplingDefaults,
  show,
} from '../../lib/policy/sampling.ts'

test('options that are left out, or undefined, take their defaults', (t) => {
  t.deepEqual(resolveSampling({}), { ...samplingDefaults, stop: [] })
  t.is(resolveSampling({ temperature: undefined, topK: 7 }).topK, 7)
  t.is(resolveSampling({ temperature: 0 }).temperature, 0)
})

test('messages name the option with its place, what was expected and what came', (t) => {
  t.throws(() => resolveSampling({ temperature: -1 }, 'requests[3].'), {
    code: 'ERR_INVALID_ARG',
    message: 'Expected a number of at least 0 for requests[3].temperature but received -1',
  })
})

test('seeds of requests are those of SplitMix64, and differ', (t) => {
  // The first outputs of the reference implementation for seed 1234567.
  const expected = [6457827717110365317n, 3203168211198807973n, 9817491932198370423n]
  t.deepEqual(
    [0, 1, 2].map((index) => requestSeed(1234567n, index)),
    expected,
  )
  const seeds = Array.from({ length: 1000 }, (_, index) => requestSeed(0n, index))
  t.is(new Set(seeds).size, 1000)
})

test('a seed crosses as two halves that give it back', (t) => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (seed) => {
      const { seedHigh, seedLow } = nativeSampling(resolveSampling({}), resolveSeed(seed))
      t.is((BigInt(seedHigh) << 32n) | BigInt(seedLow), seed)
    }),
  )
})

test('stop strings cross as UTF-8', (t) => {
  const { stop } = nativeSampling(resolveSampling({ stop: ['é>'] }), 0n)
  t.deepEqual(stop, [Uint8Array.of(0xc3, 0xa9, 0x3e)])
})

test('any value can be shown in a message', (t) => {
  t.notThrows(() =>
    fc.assert(fc.property(fc.anything({ withNullPrototype: true }), (value) => show(value).length >= 0)),
  )
  t.is(show('x'), "'x'")
  t.is(show([1]), 'an array')
  t.is(show(new Float32Array(1)), 'an object of class Float32Array')
})

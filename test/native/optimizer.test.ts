import { devices } from './devices.ts'
import { bytes, close, doubles, normal } from './reference.ts'

const settings = { learningRate: 1e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1 }

for (const { kernels, test } of devices) {
  for (const count of [1, 3, 31, 47, 123, 49157]) {
    test(`adamw: three steps over ${count} values equal the reference within 1e-7`, async (t) => {
      let state: Record<'weight' | 'firstMoment' | 'secondMoment', Float32Array> = {
        weight: normal(1, count),
        firstMoment: new Float32Array(count),
        secondMoment: new Float32Array(count),
      }
      for (let step = 1; step <= 3; step++) {
        // Each step begins with what the last one left, so that its own error shows and not the sum of all.
        const [w, m, v] = [doubles(state.weight), doubles(state.firstMoment), doubles(state.secondMoment)]
        const gradient = normal(10 + step, count)
        state = await kernels.adamw({ ...state, ...settings, gradient, step, gradientScale: 0.5 })
        for (let i = 0; i < count; i++) {
          const g = gradient[i]! * 0.5
          w[i]! *= 1 - settings.learningRate * settings.weightDecay
          m[i] = settings.beta1 * m[i]! + (1 - settings.beta1) * g
          v[i] = settings.beta2 * v[i]! + (1 - settings.beta2) * g * g
          const denominator = Math.sqrt(v[i]! / (1 - settings.beta2 ** step)) + settings.epsilon
          w[i]! -= (settings.learningRate * m[i]!) / (1 - settings.beta1 ** step) / denominator
        }
        close(t, 'weight', state.weight, w, { absolute: 1e-7, relative: 2e-7 })
        close(t, 'firstMoment', state.firstMoment, m, { absolute: 1e-7, relative: 1e-6 })
        close(t, 'secondMoment', state.secondMoment, v, { absolute: 1e-7, relative: 1e-6 })
      }
    })

    test(`globalNorm of ${count} values equals the reference, bit for bit on any number of threads`, async (t) => {
      const gradients = [normal(1, count), new Float32Array(0), normal(2, 5)]
      const expected = Math.sqrt(
        gradients.reduce((sum, part) => part.reduce((s, value) => s + value * value, sum), 0),
      )
      const norm = await kernels.globalNorm({ gradients }, { threads: 1 })
      t.true(Math.abs(norm - expected) <= 1e-12 * expected)
      for (const threads of [2, 3]) t.is(await kernels.globalNorm({ gradients }, { threads }), norm)
    })
  }

  test('adamw: a gradient of 0 moves nothing but the decay, and the bits do not depend on threads', async (t) => {
    const zeros = new Float32Array(100)
    const weight = normal(1, 100)
    const still = await kernels.adamw({
      ...settings,
      weight,
      gradient: zeros,
      firstMoment: zeros,
      secondMoment: zeros,
      step: 1,
      weightDecay: 0,
    })
    t.deepEqual(still.weight, weight)
    const long = {
      ...settings,
      weight: normal(2, 70000),
      gradient: normal(3, 70000),
      firstMoment: normal(4, 70000),
      secondMoment: normal(5, 70000).map(Math.abs),
      step: 7,
    }
    const one = await kernels.adamw(long, { threads: 1 })
    for (const threads of [2, 3]) {
      const more = await kernels.adamw(long, { threads })
      t.deepEqual(bytes(more.weight), bytes(one.weight))
    }
  })

  test('globalNorm of nothing is 0, and a NaN or an overflow shows', async (t) => {
    t.is(await kernels.globalNorm({ gradients: [] }), 0)
    t.true(Number.isNaN(await kernels.globalNorm({ gradients: [Float32Array.of(1, Number.NaN)] })))
    t.is(
      await kernels.globalNorm({ gradients: [Float32Array.of(Number.POSITIVE_INFINITY)] }),
      Number.POSITIVE_INFINITY,
    )
    t.true(Number.isFinite(await kernels.globalNorm({ gradients: [new Float32Array(4).fill(3e38)] })))
  })
}

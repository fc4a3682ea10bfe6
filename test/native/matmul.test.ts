import test from 'ava'
import { execa } from 'execa'
import { loadEmulated } from '../../lib/native.ts'
import { type Device, devices, emulated, hasEmulated } from './devices.ts'
import * as reference from './reference.ts'

const { close, doubles, elements, normal } = reference
const sizes: [rows: number, outputs: number, inputs: number][] = [
  [1, 1, 1],
  [3, 31, 47],
  [31, 123, 3],
  [47, 3, 123],
  [123, 47, 31],
  [33, 576, 576],
  [5, 1536, 576],
  [2, 576, 1536],
  // Rows that are aligned, and end within a step along the sum.
  [5, 40, 72],
  // More outputs than the gradient of x adds up at a time.
  [3, 4201, 31],
]
const bf16Bits = { absolute: 0.02, relative: 2 ** -8 }

// The emulation takes seconds for what the CPU does in milliseconds.
const realSizes: [outputs: number, inputs: number][] = [
  [576, 1536],
  [1536, 576],
  [47, 123],
  [896, 4864],
]
const bitSizes: Record<Device['name'], [outputs: number, inputs: number][]> = {
  cpu: realSizes,
  cuda: realSizes,
  'cuda-emulated': [
    [47, 123],
    [136, 160],
  ],
}

for (const { name, kernels, test } of devices) {
  for (const dtype of reference.dtypes) {
    for (const [rows, outputs, inputs] of sizes) {
      const x = elements(normal(1, rows * inputs), dtype)
      const weight = normal(2, outputs * inputs)
      const bias = normal(3, outputs)
      const seen = doubles(elements(weight, dtype))
      const bound = { absolute: 2e-6 * inputs ** 0.5, relative: 1e-5 }

      test(`matmul ${dtype}: [${rows}, ${inputs}] times [${outputs}, ${inputs}] equals the reference`, async (t) => {
        const { y } = await kernels.matmul({ x, weight, inputs, bias })
        const expected = reference.matmul(doubles(x), seen, inputs, doubles(bias))
        close(t, 'y', y, expected, bound)
        if (dtype === 'bf16') {
          const rounded = await kernels.matmul({ x, weight, inputs, bias, outputType: 'bf16' })
          t.true(rounded.y instanceof Uint16Array)
          close(t, 'rounded y', rounded.y, expected, bf16Bits)
        }
      })

      test(`matmul ${dtype}: [${rows}, ${inputs}] times [${outputs}, ${inputs}] adds to a residual what it gives without`, async (t) => {
        const residual = normal(5, rows * outputs)
        const plain = (await kernels.matmul({ x, weight, inputs, bias })).y as Float32Array
        const { y } = await kernels.matmul({ x, weight, inputs, bias, residual })
        const expected = plain.map((value, i) => value + residual[i]!)
        close(t, 'y', y, expected, { absolute: 1e-5, relative: 1e-5 })
      })

      test(`matmulBackward ${dtype}: [${rows}, ${outputs}] by [${outputs}, ${inputs}] equals the reference`, async (t) => {
        const dy = elements(normal(4, rows * outputs), dtype)
        const { dx, dweight, dbias } = await kernels.matmulBackward({ dy, x, weight, inputs })
        const dyT = reference.transpose(doubles(dy), outputs)
        const long = (count: number) => ({ absolute: 2e-6 * count ** 0.5, relative: 1e-5 })
        close(
          t,
          'dx',
          dx,
          reference.matmul(doubles(dy), reference.transpose(seen, inputs), outputs),
          long(outputs),
        )
        close(
          t,
          'dweight',
          dweight,
          reference.matmul(dyT, reference.transpose(doubles(x), inputs), rows),
          long(rows),
        )
        close(t, 'dbias', dbias, reference.matmul(dyT, new Float64Array(rows).fill(1), rows), long(rows))
      })
    }

    test(`matmul ${dtype}: a row's bits depend on nothing but the row`, async (t) => {
      for (const [outputs, inputs] of bitSizes[name]) {
        const rows = 100
        const x = elements(normal(5, rows * inputs), dtype)
        const weight = normal(6, outputs * inputs)
        const whole = (await kernels.matmul({ x, weight, inputs }, { threads: 1 })).y
        for (const [begin, count, threads] of [
          [0, 100, 2],
          [0, 100, 3],
          [7, 1, 1],
          [31, 3, 3],
          [60, 33, 2],
        ] as const) {
          const part = x.slice(begin * inputs, (begin + count) * inputs)
          const { y } = await kernels.matmul({ x: part, weight, inputs }, { threads })
          const expected = whole.slice(begin * outputs, (begin + count) * outputs)
          t.deepEqual(
            reference.bytes(y),
            reference.bytes(expected),
            `${outputs}×${inputs} ${begin}+${count} ${threads}`,
          )
        }
      }
    })

    test(`matmulBackward ${dtype}: many chunks of rows add up`, async (t) => {
      const [rows, outputs, inputs] = [1100, 7, 5]
      const x = elements(normal(7, rows * inputs), dtype)
      const dy = elements(normal(8, rows * outputs), dtype)
      const { dweight } = await kernels.matmulBackward({ dy, x, weight: normal(9, outputs * inputs), inputs })
      const dyT = reference.transpose(doubles(dy), outputs)
      const expected = reference.matmul(dyT, reference.transpose(doubles(x), inputs), rows)
      close(t, 'dweight', dweight, expected, { absolute: 1e-4, relative: 1e-5 })
    })

    test(`matmul ${dtype}: a residual needs the shape and the type of y`, async (t) => {
      const args = { x: elements(normal(1, 15), dtype), weight: normal(2, 10), inputs: 5 }
      const short = kernels.matmul({ ...args, residual: normal(3, 5) })
      await t.throwsAsync(short, { message: /\[rows, outputs\] for residual/ })
      const rounded = kernels.matmul({ ...args, residual: normal(3, 6), outputType: 'bf16' })
      await t.throwsAsync(rounded, { message: /'f32'/ })
    })

    test(`matmul ${dtype}: no rows give no rows`, async (t) => {
      const x = elements(new Float32Array(0), dtype)
      const weight = normal(1, 15)
      t.is((await kernels.matmul({ x, weight, inputs: 5 })).y.length, 0)
      const { dx, dweight } = await kernels.matmulBackward({ dy: x, x, weight, inputs: 5 })
      t.is(dx.length, 0)
      t.true(dweight.every((value) => value === 0))
    })
  }

  test('matmul: a row with a NaN or an infinity leaves the others alone', async (t) => {
    const x = normal(1, 3 * 47)
    const weight = normal(2, 31 * 47)
    const clean = (await kernels.matmul({ x, weight, inputs: 47 })).y as Float32Array
    x[50] = Number.NaN
    const { y } = await kernels.matmul({ x, weight, inputs: 47 })
    t.true((y as Float32Array).subarray(31, 62).every(Number.isNaN))
    t.deepEqual(y.slice(0, 31), clean.slice(0, 31))
    t.deepEqual(y.slice(62), clean.slice(62))
  })
}

if (hasEmulated) {
  const { emulation } = loadEmulated()
  for (const dtype of reference.dtypes) {
    test.serial(
      `emulated CUDA: matmul ${dtype}: every cut into tiles and every schedule gives the same bits, in all transposes`,
      async (t) => {
        // 1 multiprocessor takes tiles of 128, 6 of 64, 15 of 32, 132 of 16; 9 slices of K are more than 8 warps.
        for (const [rows, outputs, inputs] of [
          [130, 136, 300],
          [70, 136, 72],
          [33, 20, 1100],
        ] as const) {
          const x = elements(normal(1, rows * inputs), dtype)
          const dy = elements(normal(2, rows * outputs), dtype)
          const weight = normal(3, outputs * inputs)
          const bias = normal(4, outputs)
          const run = async (seed: number, multiprocessors: number) => {
            emulation.setSeed(seed)
            emulation.setMultiprocessors(multiprocessors)
            const { y } = await emulated.kernels.matmul({ x, weight, inputs, bias })
            const { dx, dweight } = await emulated.kernels.matmulBackward({ dy, x, weight, inputs })
            return [y, dx, dweight].map(reference.bytes)
          }
          const expected = await run(0, 132)
          for (const [i, multiprocessors] of [1, 6, 15, 132].entries()) {
            t.deepEqual(await run(i + 1, multiprocessors), expected, `${multiprocessors} multiprocessors`)
          }
        }
        emulation.setSeed(0)
        emulation.setMultiprocessors(0)
      },
    )
  }
}

const onX86 = process.arch === 'x64' ? test : test.skip

/** For each type, whether some rows of a batch have the bits that they have in the whole: `true`, `false` or an error. */
async function rowsKeepTheirBits(level: string): Promise<string[]> {
  const script = `
    import { kernels } from './lib/kernels.ts'
    import { bytes, elements, normal } from './test/native/reference.ts'
    const [rows, outputs, inputs] = [70, 300, 700]
    const weight = normal(2, outputs * inputs)
    for (const dtype of ['f32', 'bf16']) {
      const x = elements(normal(1, rows * inputs), dtype)
      const multiply = async (begin, count, threads) =>
        (await kernels.matmul({ x: x.slice(begin * inputs, (begin + count) * inputs), weight, inputs }, { threads })).y
      try {
        const whole = await multiply(0, rows, 1)
        let equal = true
        for (const [begin, count, threads] of [[0, 70, 3], [5, 1, 1], [33, 2, 2], [60, 9, 3]]) {
          const part = whole.slice(begin * outputs, (begin + count) * outputs)
          equal &&= bytes(await multiply(begin, count, threads)).equals(bytes(part))
        }
        console.log(equal)
      } catch (error) {
        console.log(error.code, error.message)
      }
    }`
  const { stdout } = await execa('node', ['--import=tsx', '--input-type=module', '-e', script], {
    env: { SSRL_CPU: level },
  })
  return stdout.split('\n')
}

onX86('matmul without AVX-512: f32 rows keep their bits, bf16 is ERR_NO_DEVICE with advice', async (t) => {
  const [f32, bf16] = await rowsKeepTheirBits('avx2')
  t.is(f32, 'true')
  t.regex(bf16!, /^ERR_NO_DEVICE .*AVX-512.*use the dtype f32/)
})

for (const level of ['avx512', 'amx']) {
  onX86(`matmul with SSRL_CPU=${level}: rows keep their bits, by the products of that level`, async (t) => {
    const [f32, bf16] = await rowsKeepTheirBits(level)
    t.is(f32, 'true')
    t.regex(bf16!, /^true|^ERR_NO_DEVICE/)
  })
}

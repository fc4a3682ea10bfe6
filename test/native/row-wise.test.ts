import { devices } from './devices.ts'
import * as reference from './reference.ts'

const { bytes, close, differences, dot, doubles, elements, normal, pick, spread } = reference
const exact = { f32: { absolute: 2e-6, relative: 2e-6 }, bf16: { absolute: 1e-5, relative: 2 ** -8 } }
const gradient = { f32: { absolute: 3e-5, relative: 3e-5 }, bf16: { absolute: 1e-3, relative: 2 ** -8 } }
const shapes: [tokens: number, groups: number, width: number][] = [
  [1, 1, 1],
  [3, 3, 31],
  [31, 1, 47],
  [47, 2, 123],
  [5, 9, 64],
  [4, 1, 576],
]

for (const { kernels, test } of devices) {
  for (const dtype of reference.dtypes) {
    for (const [tokens, groups, width] of shapes) {
      const shape = `[${tokens}, ${groups}, ${width}]`
      const x = elements(normal(1, tokens * groups * width), dtype)
      const weight = normal(2, width)

      test(`rmsNorm ${dtype} ${shape} equals the reference, forward and backward`, async (t) => {
        const epsilon = 1e-5
        const { y, inverseRms } = await kernels.rmsNorm({ x, weight, groups, epsilon })
        close(t, 'y', y, reference.rmsNorm(doubles(x), doubles(weight), epsilon), exact[dtype])
        const dy = elements(normal(3, x.length), dtype)
        const { dx, dweight } = await kernels.rmsNormBackward({ dy, x, weight, inverseRms, groups })
        const indices = spread(x.length, 40)
        const byX = (at: Float64Array) => dot(doubles(dy), reference.rmsNorm(at, doubles(weight), epsilon))
        close(t, 'dx', pick(dx, indices), differences(byX, doubles(x), indices), gradient[dtype])
        const columns = spread(width, 20)
        const byWeight = (at: Float64Array) => dot(doubles(dy), reference.rmsNorm(doubles(x), at, epsilon))
        const expected = differences(byWeight, doubles(weight), columns)
        close(t, 'dweight', pick(dweight, columns), expected, { absolute: 1e-4, relative: 1e-5 })
      })

      test(`swiglu ${dtype} ${shape} equals the reference, forward and backward`, async (t) => {
        const gateUp = elements(normal(4, 2 * tokens * groups * width, 3), dtype)
        const { y } = await kernels.swiglu({ gateUp, width })
        close(t, 'y', y, reference.swiglu(doubles(gateUp), width), exact[dtype])
        const dy = elements(normal(5, y.length), dtype)
        const { dgateUp, y: again } = await kernels.swigluBackward({ gateUp, dy, width })
        t.deepEqual(again, y)
        const indices = spread(gateUp.length, 40)
        const loss = (at: Float64Array) => dot(doubles(dy), reference.swiglu(at, width))
        close(
          t,
          'dgateUp',
          pick(dgateUp, indices),
          differences(loss, doubles(gateUp), indices),
          gradient[dtype],
        )
      })
    }

    test(`swiglu ${dtype}: large gates saturate, and stay finite`, async (t) => {
      const gateUp = elements(Float32Array.of(200, -200, 88, -88, 0, 1e30, -1e30, 1, 1, 1, 1, 1, 1, 1), dtype)
      const { y } = await kernels.swiglu({ gateUp, width: 7 })
      close(t, 'y', y, reference.swiglu(doubles(gateUp), 7), { absolute: 1e-30, relative: 2 ** -8 })
      const { dgateUp } = await kernels.swigluBackward({
        gateUp,
        dy: elements(new Float32Array(7).fill(1), dtype),
        width: 7,
      })
      t.true(doubles(dgateUp).every(Number.isFinite))
    })

    for (const [tokens, heads, headDim] of [
      [1, 1, 2],
      [3, 3, 6],
      [31, 2, 46],
      [5, 9, 64],
      [4, 3, 128],
    ] as const) {
      const half = headDim / 2
      const angles = Float32Array.from(
        { length: 300 * half },
        (_, i) => Math.floor(i / half) * 10000 ** (-(i % half) / half),
      )
      const tables = { cosines: angles.map(Math.cos), sines: angles.map(Math.sin), heads, headDim }
      const x = elements(normal(6, tokens * heads * headDim), dtype)
      const positions = Int32Array.from({ length: tokens }, (_, i) => (i * 37) % 300)

      test(`rope ${dtype} [${tokens}, ${heads}, ${headDim}] rotates pairs, and ropeBackward turns them back`, async (t) => {
        const { y } = await kernels.rope({ x, positions, ...tables })
        close(t, 'y', y, reference.rope(doubles(x), { positions, ...tables }), exact[dtype])
        const { dx } = await kernels.ropeBackward({ x: y, positions, ...tables })
        close(t, 'dx', dx, doubles(x), {
          absolute: dtype === 'f32' ? 2e-6 : 2e-2,
          relative: exact[dtype].relative,
        })
      })
    }

    test(`row-wise kernels ${dtype}: a row's bits depend on nothing but the row`, async (t) => {
      const [tokens, width] = [70, 123]
      const x = elements(normal(7, tokens * 2 * width), dtype)
      const weight = normal(8, width)
      const [begin, count] = [33, 5]
      const part = x.slice(begin * 2 * width, (begin + count) * 2 * width)
      const norm = await kernels.rmsNorm({ x, weight, groups: 2, epsilon: 1e-6 }, { threads: 1 })
      const activation = await kernels.swiglu({ gateUp: x, width }, { threads: 1 })
      for (const threads of [1, 2, 3]) {
        const some = await kernels.rmsNorm({ x: part, weight, groups: 2, epsilon: 1e-6 }, { threads })
        t.deepEqual(bytes(some.y), bytes(norm.y.slice(begin * 2 * width, (begin + count) * 2 * width)))
        const few = await kernels.swiglu({ gateUp: part, width }, { threads })
        t.deepEqual(bytes(few.y), bytes(activation.y.slice(begin * width, (begin + count) * width)))
      }
    })
  }

  test('rmsNorm: a row of zeros stays zero, a bf16 result of an f32 row is rounded once', async (t) => {
    const weight = normal(1, 47)
    const { y } = await kernels.rmsNorm({ x: new Float32Array(94), weight, epsilon: 1e-6 })
    t.true((y as Float32Array).every((value) => value === 0))
    const x = normal(2, 47)
    const wide = await kernels.rmsNorm({ x, weight, epsilon: 1e-6 })
    const narrow = await kernels.rmsNorm({ x, weight, epsilon: 1e-6, outputType: 'bf16' })
    t.deepEqual(narrow.y, elements(wide.y as Float32Array, 'bf16'))
  })

  test('kernels on no rows give no rows', async (t) => {
    const none = new Float32Array(0)
    t.is((await kernels.rmsNorm({ x: none, weight: normal(1, 3), epsilon: 0 })).y.length, 0)
    t.is((await kernels.swiglu({ gateUp: none, width: 3 })).y.length, 0)
    const table = { cosines: normal(1, 2), sines: normal(1, 2), heads: 1, headDim: 4 }
    t.is((await kernels.rope({ x: none, positions: new Int32Array(0), ...table })).y.length, 0)
    const gradients = await kernels.rmsNormBackward({
      dy: none,
      x: none,
      weight: normal(1, 3),
      inverseRms: none,
    })
    t.deepEqual(gradients.dweight, new Float32Array(3))
  })

  // Wider than what one warp of a GPU takes.
  for (const width of [123, 300]) {
    test(`embedding takes rows of ${width}, rounded for bf16; embeddingBackward adds them up in order`, async (t) => {
      const vocabulary = 31
      const table = normal(1, vocabulary * width)
      const ids = Int32Array.of(3, 0, 30, 3, 3)
      const row = (values: Float32Array, index: number) => values.slice(index * width, (index + 1) * width)
      const { x } = await kernels.embedding({ ids, table, width })
      ids.forEach((id, index) => {
        t.deepEqual(row(x, index), row(table, id))
      })
      const rounded = await kernels.embedding({ ids, table, width, dtype: 'bf16' })
      t.deepEqual(elements(rounded.x, 'bf16'), elements(x, 'bf16'))
      t.deepEqual(Float64Array.from(rounded.x), doubles(elements(x, 'bf16')))
      const dx = normal(2, ids.length * width)
      const { dtable } = await kernels.embeddingBackward({ ids, dx, width, vocabulary })
      const expected = row(dx, 0).map((value, j) =>
        Math.fround(Math.fround(value + dx[3 * width + j]!) + dx[4 * width + j]!),
      )
      t.deepEqual(row(dtable, 3), expected)
      t.deepEqual(row(dtable, 30), row(dx, 2))
      t.true(row(dtable, 7).every((value) => value === 0))
    })
  }
}

/**
 * The kernels by themselves, on the typed arrays of another library: the nearest neighbours of a row in an Arrow table of
 * embeddings, and draws among all rows, the nearer the likelier.
 *
 *   node --import=tsx examples/embed.ts FILE.arrow ROW [TEMPERATURE]
 *
 * The table has the columns `text` and `embedding`, a list of a fixed number of f32 (pyarrow: pa.list_(pa.float32(), n)).
 */
import { readFile } from 'node:fs/promises'
import { type FixedSizeList, type Float32, tableFromIPC, type Utf8 } from 'apache-arrow'
import { kernels } from 'ssrl'

const [file, row, temperature = '0.1'] = process.argv.slice(2)
if (!file || !row) throw new Error('usage: embed.ts FILE.arrow ROW [TEMPERATURE]')

const table = tableFromIPC<{ text: Utf8; embedding: FixedSizeList<Float32> }>(await readFile(file))
const embeddings = table.getChild('embedding')!
const width = embeddings.type.listSize
// [rows, width], in Arrow's own memory: kernels take any typed array as it is.
const values: Float32Array = embeddings.getChildAt(0)!.toArray()
const chosen = Number(row)

// Rows of length 1: the norm makes their mean square 1, the weight divides by the root of the width.
const weight = new Float32Array(width).fill(1 / Math.sqrt(width))
const { y: rows } = await kernels.rmsNorm({ x: values, weight, epsilon: 1e-12 })

// Cosines of the chosen row with every row: [1, width] · [rows, width]ᵀ.
const own = rows.subarray(chosen * width, (chosen + 1) * width)
const { y } = await kernels.matmul({ x: own, weight: rows as Float32Array, inputs: width })
const cosines = y as Float32Array
cosines[chosen] = -1

const text = (index: number) => table.getChild('text')!.get(index)
const order = Array.from(cosines.keys()).sort((a, b) => cosines[b]! - cosines[a]!)
console.log(`nearest to ${text(chosen)}:`)
for (const index of order.slice(0, 3)) console.log(`  ${cosines[index]!.toFixed(3)}  ${text(index)}`)

const draws = 5
const logits = new Float32Array(draws * cosines.length)
for (let draw = 0; draw < draws; draw++) logits.set(cosines, draw * cosines.length)
const { tokens, logProbs } = await kernels.sample({
  logits,
  vocabulary: cosines.length,
  temperature: Number(temperature),
  positions: Int32Array.from({ length: draws }, (_, draw) => draw),
})
console.log('drawn:')
tokens.forEach((index, draw) => {
  console.log(`  p = ${Math.exp(logProbs[draw]!).toFixed(3)}  ${text(index)}`)
})

/** Products: matmul.cu in its three transposes and cuts, what it is made of, and products of f32. */
import { mutantsOf } from './mutant.ts'

const of = (...titles: string[]) => ({
  file: 'matmul',
  titles: titles.map((title) => `emulated CUDA: ${title}`),
})
const forward = of('matmul bf16: *times*')
const backward = of('matmulBackward bf16: *')
const cuts = of('matmul bf16: every cut*')
const wide = of('matmul f32: *times*', 'matmulBackward f32: *')
const banks = { file: 'cuda-banks', titles: ['matmul*'] }
const policy = { file: 'cuda-policy', titles: ['emulated CUDA: llama*transformers'] }

const tiles = mutantsOf(
  { file: 'cuda/matmul.cu', checks: [cuts] },
  {
    'matmul: one copy too many may be under way': [
      'the tile that is multiplied has not arrived',
      'wait<kStages - 2>();\n    // All',
      'wait<kStages - 1>();\n    // All',
    ],
    'matmul: no wait for copies': [
      'the tile that is multiplied has not arrived',
      'wait<kStages - 2>();\n    // All',
      '// All',
    ],
    'matmul: no barrier between a tile and its copies': [
      'warps read what others copy, and copy over what others read',
      'in the ring.\n    sync_threads();',
      'in the ring.',
    ],
    'matmul: copies go to the buffer that is multiplied': [
      'a tile is overwritten while it is read',
      'fill((stage + kStages - 1) % kStages,',
      'fill(stage,',
    ],
    'matmul: buffers do not advance': [
      'the first tile is multiplied again',
      'stage = (stage + 1) % kStages;',
      '',
    ],
    'matmul: slices are not summed from zero': [
      'large tiles have other bits than small ones',
      'totals[i][j].value[e] += sums[i][j].value[e];\n        sums[i][j] = {};',
      'totals[i][j].value[e] = sums[i][j].value[e];',
    ],
    'matmul: the last slice is left out when it is short': [
      'the end of K does not count',
      '(k + kDepth) % kSlice != 0 && k + kDepth < g.depth',
      '(k + kDepth) % kSlice != 0',
    ],
    'matmul: lower rows are stored in the upper': [
      'fragments land in wrong rows',
      'store_products(g, to_row + 8, to_column,',
      'store_products(g, to_row, to_column,',
    ],
    'matmul: warps take the columns of the first': [
      'most of a tile is not multiplied',
      'warp_column = warp_index() % Cut::kAcross * Cut::kWarpColumns;',
      'warp_column = 0;',
    ],
  },
)

const slices = mutantsOf(
  { file: 'cuda/matmul.cu', checks: [forward, backward, cuts] },
  {
    'matmul, few rows: one copy too many may be under way': [
      'the tile that is multiplied has not arrived',
      'wait<kStages - 2>();\n    sync_warp();',
      'wait<kStages - 1>();\n    sync_warp();',
    ],
    'matmul, few rows: no barrier of the warp after copies': [
      'lanes read what others have not yet waited for',
      'wait<kStages - 2>();\n    sync_warp();',
      'wait<kStages - 2>();',
    ],
    'matmul, few rows: no barrier before parts are added': [
      'sums of other warps are not there yet',
      '        sums[i][j] = {};\n      }\n    }\n    sync_threads();\n',
      '        sums[i][j] = {};\n      }\n    }\n',
    ],
    'matmul, few rows: no barrier after parts were added': [
      'the next parts overwrite them',
      'totals[own].second += memory.parts.load(at + 32);\n      }\n    }\n    sync_threads();\n',
      'totals[own].second += memory.parts.load(at + 32);\n      }\n    }\n',
    ],
    'matmul, few rows: every warp takes the first slice': [
      'K is summed once for each warp',
      '(static_cast<int64_t>(step / kSteps) * warps + warp) * kSlice',
      '(static_cast<int64_t>(step / kSteps) * warps) * kSlice',
    ],
    'matmul, few rows: warps share their buffers': [
      'a slice is copied over that of another warp',
      '(warp * kStages + step % kStages) * Side * kDepth',
      '(step % kStages) * Side * kDepth',
    ],
    'matmul, few rows: the first slice alone': [
      'parts of other warps are left out',
      'other < warps; ++other',
      'other < 1; ++other',
    ],
    'matmul, few rows: parts keep what was summed before': [
      'slices count more than once',
      'memory.parts.store(at * 32 + lane_index(), sums[i][j].value[e]);\n        }\n        sums[i][j] = {};',
      'memory.parts.store(at * 32 + lane_index(), sums[i][j].value[e]);\n        }',
    ],
    'matmul, few rows: halves of a fragment are exchanged': [
      'rows 8 below change places with their upper ones',
      'half % 2 * 8 + lane / 4',
      '(1 - half % 2) * 8 + lane / 4',
    ],
    'matmul, few rows: fewer slices than there are': [
      'the end of long sums is left out',
      'pieces_of(g.depth, kSlice);\n  const int warps',
      'g.depth / kSlice;\n  const int warps',
    ],
  },
)

const parts = mutantsOf(
  {
    file: 'cuda/matmul_tile.h',
    sources: ['cuda/matmul.cu', 'cuda/matmul_f32.cu'],
    checks: [forward, backward],
  },
  {
    'matmul: columns past the end are copied': [
      'what follows a row is taken for its end',
      'line < from.lines && column < from.width',
      'line < from.lines',
    ],
    'matmul: lines past the end are copied': [
      'what follows the matrix is taken for its end',
      'line < from.lines && column < from.width',
      'column < from.width',
    ],
    'matmul: one element too many of a row that is not aligned': [
      'the first element of the next row counts',
      'if (i < left) words',
      'if (i <= left) words',
    ],
    'matmul: alignment of an operand is not looked at': [
      'copies of 16 bytes from any address',
      'width % 8 == 0 && aligned16(static_cast<const Bf16*>(data))',
      'true',
    ],
    'matmul: halves of a fragment of b are exchanged': [
      'depths 0-7 and 8-15 of b meet the others of a',
      '{right[j / 2].part[j % 2 * 2], right[j / 2].part[j % 2 * 2 + 1]}',
      '{right[j / 2].part[j % 2 * 2 + 1], right[j / 2].part[j % 2 * 2]}',
    ],
    'matmul: quarters of a fragment of a are exchanged': [
      'upper right and lower left of a change places',
      'at_row = row + (matrix & 1) * 8, at_k = k + (matrix >> 1) * 8',
      'at_row = row + (matrix >> 1) * 8, at_k = k + (matrix & 1) * 8',
    ],
    'matmul: the second step along K reads the first': [
      'half of each tile counts twice',
      'left[i] = load_a<TransposedA, Rows>(a, a_base, row + 16 * i, k);',
      'left[i] = load_a<TransposedA, Rows>(a, a_base, row + 16 * i, 0);',
    ],
    'matmul: no bound on columns': [
      'a tile past the end overwrites the next row',
      'if (row >= g.rows || column >= g.columns) return;',
      'if (row >= g.rows) return;',
    ],
    'matmul: no bound on the second of two neighbours': [
      'the last column of an odd number overwrites the next row',
      'column + 1 >= g.columns',
      'column >= g.columns',
    ],
    'matmul: no bias': ['the bias of the epilogue is lost', 'first += g.bias[column];', ''],
    'matmul: the residual is overwritten': [
      'products that are to be added replace what is there',
      'g.accumulate ? FloatPair{before.first + first, before.second + second} : FloatPair{first, second}',
      'FloatPair{first, second}',
      [policy],
    ],
    'matmul: pieces are not exchanged': [
      'ldmatrix meets the same banks again and again',
      '8 * (piece ^ (line / (8 / kTurns) & (kTurns - 1)))',
      '8 * piece',
      [banks],
    ],
    'matmul: pieces of short lines are exchanged line by line': [
      'lines shorter than all banks meet in them',
      'line / (8 / kTurns) & (kTurns - 1)',
      'line & (kTurns - 1)',
      [banks],
    ],
  },
)

const floats = mutantsOf(
  { file: 'cuda/matmul_f32.cu', checks: [wide] },
  {
    'matmul f32: no barrier after the tiles are filled': [
      'warps read tiles that others have not filled',
      'k + b_k, g.columns, g.depth));\n    }\n    sync_threads();\n',
      'k + b_k, g.columns, g.depth));\n    }\n',
    ],
    'matmul f32: no barrier before tiles are filled again': [
      'a tile is filled while warps still read it',
      'sums[i] = fmaf(left, right, sums[i]);\n      }\n    }\n    sync_threads();\n',
      'sums[i] = fmaf(left, right, sums[i]);\n      }\n    }\n',
    ],
    'matmul f32: no bound on the depth': [
      'what follows a row counts as its end',
      'if (line >= lines || k >= depth) return 0.0f;',
      'if (line >= lines) return 0.0f;',
    ],
    'matmul f32: a transposed operand has the other stride': [
      'elements of a transposed operand come from elsewhere',
      'Transposed ? k * lines + line : line * depth + k',
      'Transposed ? k * depth + line : line * depth + k',
    ],
    'matmul f32: a tile is read with another stride than it was filled': [
      'rows of the tile run into each other',
      'const float right = tiles.b.load(step * (kSide + 1) + lane_index());',
      'const float right = tiles.b.load(step * kSide + lane_index());',
    ],
  },
)

const calls = mutantsOf(
  { file: 'cuda/cuda_ops.cc', checks: [policy] },
  {
    'weights: a step leaves the packed weight as it was': [
      'the copy in the compute type is not brought up to date',
      'return a.packed == nullptr ? Status() : repack(a.weight, a.packed);',
      'return {};',
      [{ file: 'cuda-learner', titles: ['emulated CUDA: llama*a whole step*'] }],
    ],
    'cache: rows go to the first page': [
      'fresh keys and values are put into a wrong page',
      'static_cast<const char*>(pointers[i]) - static_cast<const char*>(pointers[0])',
      'i * 0',
      [{ file: 'cuda-emulation', titles: ['rows are gathered*'] }],
    ],
    'cache: rows are copied without their stride': [
      'keys come from a wrong part of the fused q/k/v row',
      '{from, stride * size, nullptr, to[0], offsets, rows, width * size}',
      '{from, width * size, nullptr, to[0], offsets, rows, width * size}',
      [policy],
    ],
  },
)

export const products = [...tiles, ...slices, ...parts, ...floats, ...calls]

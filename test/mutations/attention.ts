/** Attention: forward, its plan, and the fragments that both directions are made of. */
import { type Check, mutantsOf } from './mutant.ts'

const of = (...titles: string[]): Check => ({
  file: 'attention',
  titles: titles.map((title) => `emulated CUDA: ${title}`),
})
const narrow = of('attention bf16: *reference')
const wide = of('attention f32: *reference')
const packed = of('attention bf16: packed*')
const paged = of('pagedAttention bf16*')
const shared = of('attention: keys*')
const backward = of('attentionBackward bf16*', 'attentionBackward f32*')
const banks = { file: 'cuda-banks', titles: ['attention*'] }

const forward = mutantsOf(
  { file: 'cuda/attention.cu', checks: [narrow, wide, paged, packed, shared] },
  {
    'attention: no wait for the queries and the first page': [
      'the first products read what has not arrived',
      'wait<0>();\n  sync_threads();\n  Queries',
      'sync_threads();\n  Queries',
    ],
    'attention: no barrier after the first page': [
      'warps read what others are still copying',
      'wait<0>();\n  sync_threads();\n  Queries',
      'wait<0>();\n  Queries',
    ],
    'attention: no wait for the next page': [
      'a page is weighed before it has arrived',
      '    wait<0>();\n    sync_threads();\n  }\n  if (tile.record < 0)',
      '    sync_threads();\n  }\n  if (tile.record < 0)',
    ],
    'attention: no barrier after the next page': [
      'a page is weighed while others copy it',
      '    wait<0>();\n    sync_threads();\n  }\n  if (tile.record < 0)',
      '    wait<0>();\n  }\n  if (tile.record < 0)',
    ],
    'attention: no barrier before a page is replaced': [
      'warps that are behind read the next page',
      '      sync_threads();\n      work.fetch_page(page + 1);',
      '      work.fetch_page(page + 1);',
    ],
    'attention: all pages in one buffer': [
      'the next page is copied over the one that is read',
      '(page - tile.begin) % kStages * kPage',
      '(page - tile.begin) % 1 * kPage',
    ],
    'attention: a row sees the key after its own': [
      'the mask lets the next token through',
      'lane_index() % 4 * 2 + e < visible ?',
      'lane_index() % 4 * 2 + e <= visible ?',
    ],
    'attention: pages that a row does not see count': [
      'rows without a key in a page become NaN',
      'counts[half] = visible > 0 && pair < tile.pairs;',
      'counts[half] = pair < tile.pairs;',
    ],
    'attention: rows past the end of a tile count': [
      'pairs that are not there are stored',
      'counts[half] = visible > 0 && pair < tile.pairs;',
      'counts[half] = visible > 0;',
    ],
    'attention: values are not rescaled': [
      'pages before a larger score weigh too much',
      'sum = fmaf(part[i].value[e], state[half].add, sum * state[half].keep);',
      'sum = fmaf(part[i].value[e], state[half].add, sum);',
    ],
    'attention: the sum of weights is not rescaled': [
      'weights do not add up to 1',
      'fmaf(total, state.add, state.total * state.keep)',
      'fmaf(total, state.add, state.total)',
    ],
    'attention: a page is merged at its own maximum': [
      'pages below the maximum weigh too much',
      'state.add = exponential2(maximum - raised);',
      'state.add = 1;',
    ],
    'attention: the maximum does not rise': [
      'later pages are scaled by the first',
      'state.maximum = raised;',
      '',
    ],
    'attention: the scale is left out': [
      'scores are those of unscaled products',
      'weigh(scores, half, visible, a.shape.scale * kLog2E)',
      'weigh(scores, half, visible, kLog2E)',
    ],
    'attention: powers of two for powers of e': [
      'weights are too flat',
      'weigh(scores, half, visible, a.shape.scale * kLog2E)',
      'weigh(scores, half, visible, a.shape.scale)',
    ],
    'attention: log-sum-exp mixes its bases': [
      'the backward pass rebuilds wrong weights',
      'fmaf(state.maximum, kLn2, logarithm(state.total))',
      'state.maximum + logarithm(state.total)',
    ],
    'attention: heads of the wrong group': [
      'a query reads the keys of other heads',
      'return kv_head * group + (tile.first_pair + pair) % group;',
      'return (tile.first_pair + pair) % group * a.shape.kv_heads + kv_head;',
    ],
    'attention: rows of a group are one apart': [
      'pairs are taken for rows',
      'return tile.query_row + (tile.first_pair + pair) / group;',
      'return tile.query_row + (tile.first_pair + pair) % group;',
    ],
    'attention: keys and values change places': [
      'values are multiplied with queries',
      'a.first_block + blocks[0]) + offset,',
      'a.first_block + blocks[1]) + offset,',
    ],
    'attention: pages of the first sequence': [
      'every sequence reads the pages of the first',
      '2 * (static_cast<int64_t>(tile.first_block) + page)',
      '2 * static_cast<int64_t>(page)',
    ],
    'attention: the first kv head for all': [
      'heads of the other groups read the first keys',
      'const int64_t offset = static_cast<int64_t>(kv_head) * depth.columns();',
      'const int64_t offset = 0;',
    ],
    'attention: values past the last key are read': [
      'a weight of 0 meets a NaN',
      'return row < count ? values + row * a.shape.kv_stride : nullptr;',
      'return values + row * a.shape.kv_stride;',
    ],
    'attention: warps skip pages that their last rows see': [
      'rows lose their newest page',
      'first < tile.pairs ? tile.seen(last - 1, work.group) : 0',
      'first < tile.pairs ? tile.seen(first, work.group) : 0',
    ],
    'attention: weights do not add up to 1': [
      'outputs are sums, not means',
      'const float inverse = 1.0f / state[half].total;',
      'const float inverse = 1.0f;',
    ],
    'attention: rows of the output without their stride': [
      'outputs of other rows are overwritten',
      'row_of(pair) * a.shape.out_stride +\n',
      'row_of(pair) * a.shape.head_dim +\n',
    ],
    'attention: shared pages of other kv heads': [
      'parts of one head overwrite those of another',
      'return kv_head * a.records + tile.record',
      'return tile.record',
    ],
    'attention: shared pages in one record': [
      'parts of a pair overwrite each other',
      'static_cast<int64_t>(pair) * tile.pages + page;',
      'static_cast<int64_t>(pair) * tile.pages + page - tile.begin;',
    ],
    'attention: pages are merged past the last that a pair sees': [
      'parts that nobody wrote count',
      'const int pages = (tile.seen(pair, group) + kPage - 1) / kPage;',
      'const int pages = tile.pages;',
    ],
    'attention: shared pages are not rescaled': [
      'parts before a larger score weigh too much',
      'state.add, sums[i][e] * state.keep);',
      'state.add, sums[i][e]);',
    ],
    'attention: shared pages without their sums': [
      'parts are weighed by their maxima',
      'merge(state, a.statistics[2 * page], a.statistics[2 * page + 1]);',
      'merge(state, a.statistics[2 * page], a.statistics[2 * page]);',
    ],
  },
)

const plan = mutantsOf(
  { file: 'cuda/attention_plan.cc', checks: [narrow, paged, packed] },
  {
    'attention: pages of the prefix are left out': [
      'the list of pages ends too early',
      '(sequence.position + sequence.query_count + kPage - 1) / kPage',
      '(sequence.query_count + kPage - 1) / kPage',
    ],
    'attention: a tile stops a page early': [
      'rows lose their newest page',
      'pages = (seen + kPage - 1) / kPage;',
      'pages = seen / kPage + (seen < kPage);',
    ],
    'attention: lists of pages begin at double the distance': [
      'sequences read the pages of others',
      'plan.blocks.distances.size() / 2',
      'plan.blocks.distances.size()',
    ],
    'attention: all runs begin with the first page': [
      'pages count several times',
      'runs.back().begin = begin;',
      '',
    ],
    'attention: split tiles share their records': [
      'parts of a tile overwrite those of another',
      'plan->records += int64_t{tile.pairs} * tile.pages;',
      'plan->records += tile.pairs;',
    ],
  },
)

const fragments = mutantsOf(
  {
    file: 'cuda/attention_tile.h',
    sources: ['cuda/attention.cu', 'cuda/attention_backward.cu'],
    checks: [narrow, wide, backward],
  },
  {
    'fragments: quarters of the left-hand side are exchanged': [
      'queries meet keys of other depths',
      'place_of<Bf16, Width>(row + (matrix & 1) * 8 + lane % 8, 2 * step + (matrix >> 1))',
      'place_of<Bf16, Width>(row + (matrix >> 1) * 8 + lane % 8, 2 * step + (matrix & 1))',
    ],
    'fragments: keys of a pair of tiles are exchanged': [
      'scores belong to keys eight away',
      'mma(&c[2 * pair], a.part, {right.part[0], right.part[1]});',
      'mma(&c[2 * pair], a.part, {right.part[2], right.part[3]});',
    ],
    'fragments: weights of rows 8 below change places': [
      'weights meet wrong rows of values',
      'part[step][1] = pack_bf16(low.value[2], low.value[3]);\n      part[step][2] = pack_bf16(high.value[0], high.value[1]);',
      'part[step][2] = pack_bf16(low.value[2], low.value[3]);\n      part[step][1] = pack_bf16(high.value[0], high.value[1]);',
    ],
    'fragments: two neighbours are packed the wrong way round': [
      'weights meet the value of the neighbour',
      'pack_bf16(low.value[0], low.value[1])',
      'pack_bf16(low.value[1], low.value[0])',
    ],
    'fragments: values are not transposed': [
      'rows of values are taken for columns',
      'ldmatrix<true>(b, place_of<Bf16, Width>(row, 2 * n + (matrix >> 1)))',
      'ldmatrix<false>(b, place_of<Bf16, Width>(row, 2 * n + (matrix >> 1)))',
    ],
    'fragments: every step of values reads the first': [
      'weights of later keys meet the first values',
      'const int row = b_row + 16 * step + (matrix & 1) * 8 + lane % 8;',
      'const int row = b_row + (matrix & 1) * 8 + lane % 8;',
    ],
    'fragments: pieces are not exchanged': [
      'ldmatrix meets the same banks again and again',
      'kPiece<T> * (piece ^ (row & 7))',
      'kPiece<T> * piece',
      [banks],
    ],
    'fragments: rows are filled from the first on': [
      'the second buffer is never filled',
      'place_of<T, Width>(first + row, piece)',
      'place_of<T, Width>(row, piece)',
    ],
    'fragments: columns past the head are read': [
      'the next head counts as the end of this one',
      'if (from == nullptr || column >= columns) {',
      'if (from == nullptr) {',
    ],
    'fragments: whole pieces past the head are read': [
      'the next head counts as the end of this one',
      'gather_elements(from + column, columns - column)',
      'gather_elements(from + column, kPiece<T>)',
    ],
    'fragments: a quad adds up wrong lanes': [
      'sums are those of other rows',
      'value += shuffle_xor(value, 1);\n  return value + shuffle_xor(value, 2);',
      'value += shuffle_xor(value, 1);\n  return value + shuffle_xor(value, 4);',
    ],
    'fragments: a quad finds the maximum of two lanes': [
      'lanes of a row scale by different maxima',
      'return third > value ? third : value;',
      'return value;',
    ],
    'fragments f32: no barrier before weights are stored': [
      'weights are replaced while lanes still read them',
      'lane_index() / 4 * kStride) {\n    sync_warp();',
      'lane_index() / 4 * kStride) {',
      [wide, of('attentionBackward f32*')],
    ],
    'fragments f32: no barrier after weights are stored': [
      'lanes read weights that are not there yet',
      '    }\n    sync_warp();\n  }',
      '    }\n  }',
      [wide],
    ],
    'fragments f32: lower rows weigh with the upper': [
      'rows 8 below have the weights of others',
      'lower = memory.values.load(base + 8 * kStride + key);',
      'lower = memory.values.load(base + key);',
      [wide],
    ],
    'fragments f32: lower rows multiply the upper': [
      'rows 8 below have the scores of others',
      'tile.load_words(place_of<float, Width>(upper + 8, piece))',
      'tile.load_words(place_of<float, Width>(upper, piece))',
      [wide],
    ],
  },
)

export const attention = [...forward, ...plan, ...fragments]

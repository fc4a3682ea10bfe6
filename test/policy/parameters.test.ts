import test from 'ava'
import { parseModelConfig } from '../../lib/policy/model-config.ts'
import {
  ggufTensorName,
  huggingFaceName,
  parameterShapes,
  permutedHeads,
  tensorSources,
} from '../../lib/policy/parameters.ts'

const config = parseModelConfig({
  model_type: 'llama',
  hidden_size: 12,
  intermediate_size: 20,
  num_hidden_layers: 2,
  num_attention_heads: 3,
  num_key_value_heads: 1,
  head_dim: 6,
  vocab_size: 33,
})
const tensors = () => [...parameterShapes(config)].map(([name, shape]) => ({ name, shape }))

test('shapes are [outputs, inputs], with heads times head size on the attention side', (t) => {
  const shapes = parameterShapes(config)
  t.deepEqual(shapes.get('model.layers.1.self_attn.q_proj.weight'), [18, 12])
  t.deepEqual(shapes.get('model.layers.1.self_attn.v_proj.weight'), [6, 12])
  t.deepEqual(shapes.get('model.layers.1.self_attn.o_proj.weight'), [12, 18])
  t.deepEqual(shapes.get('model.layers.0.mlp.down_proj.weight'), [12, 20])
  t.deepEqual(shapes.get('lm_head.weight'), [33, 12])
  t.is(shapes.size, 3 + 2 * 9)
  t.false(parameterShapes({ ...config, tieWordEmbeddings: true }).has('lm_head.weight'))
})

test('GGUF names are those of llama.cpp, and lead back', (t) => {
  t.is(ggufTensorName('model.embed_tokens.weight'), 'token_embd.weight')
  t.is(ggufTensorName('model.layers.17.self_attn.o_proj.bias'), 'blk.17.attn_output.bias')
  t.is(ggufTensorName('model.layers.0.post_attention_layernorm.weight'), 'blk.0.ffn_norm.weight')
  const full = { ...config, qkvBias: true, outputBias: true, mlpBias: true, qkNorm: true }
  for (const name of parameterShapes(full).keys()) t.is(huggingFaceName(ggufTensorName(name)), name)
  t.is(huggingFaceName('rope_freqs.weight'), null)
  t.is(huggingFaceName('model.norm.weight'), null)
  t.throws(() => ggufTensorName('blk.0.attn_q.weight'), { code: 'ERR_INVALID_ARG' })
})

test('only q and k of Llama models are permuted, biases too', (t) => {
  t.is(permutedHeads(config, 'model.layers.0.self_attn.q_proj.bias'), 3)
  t.is(permutedHeads(config, 'model.layers.0.self_attn.k_proj.weight'), 1)
  t.is(permutedHeads(config, 'model.layers.0.self_attn.o_proj.weight'), 0)
  t.is(
    permutedHeads({ ...config, architecture: 'Qwen2ForCausalLM' }, 'model.layers.0.self_attn.q_proj.weight'),
    0,
  )
})

test('each parameter is traced to its file', (t) => {
  const all = tensors()
  const sources = tensorSources(config, 'safetensors', [
    { tensors: all.slice(0, 5) },
    { tensors: all.slice(5) },
  ])
  t.deepEqual(
    sources.map(({ file }) => file),
    all.map((_, i) => (i < 5 ? 0 : 1)),
  )
  t.true(sources.every(({ parameter, tensor, permutedHeads: heads }) => parameter === tensor && heads === 0))
})

test('a tied model may carry a copy of its embedding, and old files a table of frequencies', (t) => {
  const tied = { ...config, tieWordEmbeddings: true }
  const extra = { name: 'model.layers.0.self_attn.rotary_emb.inv_freq', shape: [3] }
  const sources = tensorSources(tied, 'safetensors', [{ tensors: [...tensors(), extra] }])
  t.false(sources.some(({ tensor }) => tensor === 'lm_head.weight' || tensor === extra.name))
})

test('a tensor that is missing, misshapen or without a place is ERR_MODEL_FORMAT naming it', (t) => {
  const all = tensors()
  const refuse = (list: typeof all, message: RegExp) =>
    t.throws(() => tensorSources(config, 'safetensors', [{ tensors: list }]), {
      code: 'ERR_MODEL_FORMAT',
      message,
    })
  refuse(
    all.filter(({ name }) => name !== 'model.norm.weight'),
    /lack.*model\.norm\.weight/,
  )
  refuse(
    [...all.slice(0, -1), { name: 'lm_head.weight', shape: [33, 13] }],
    /\[33, 12\].*lm_head\.weight.*\[33, 13\]/,
  )
  refuse([...all, { name: 'model.layers.0.self_attn.q_proj.bias', shape: [18] }], /q_proj\.bias/)
})

/** How a provider is written as a word; completes "Expected …". */
export const providerSpelling =
  'self, local:FOLDER, http:ADDRESS, policy:MODEL, openai:MODEL@ADDRESS, serper or searxng:ADDRESS'

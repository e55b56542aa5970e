// Loaded before a TypeScript app where Node strips types by itself: it takes the names in imports as they stand, while
// TypeScript's own way is './config.js', or './config', where the file is './config.ts'. And it does not turn imports
// into requires, as the app's own build does where its package is "commonjs".
'use strict'

const { createRequire, registerHooks } = require('node:module')
const { dirname } = require('node:path')
const { fileURLToPath } = require('node:url')

const SOURCES = { '.js': ['.ts', '.tsx'], '.mjs': ['.mts'], '.cjs': ['.cts'], '.jsx': ['.tsx'] }
const IS_MODULE = /^\s*(import\s*[\w{*'"]|export\s)/m
const MISSING = new Set(['ERR_MODULE_NOT_FOUND', 'MODULE_NOT_FOUND', 'ERR_UNSUPPORTED_DIR_IMPORT'])

function sources(specifier) {
  if (!/^(\.{1,2}(\/|$)|\/|file:)/.test(specifier)) return []
  const [, stem, extension] = /^(.*?)(\.[cm]?jsx?)?$/.exec(specifier)
  if (extension) return (SOURCES[extension] ?? []).map((source) => stem + source)
  return [...['.ts', '.tsx', '.js'].map((source) => specifier + source), `${specifier}/index.ts`, `${specifier}/index.js`]
}

function first(specifier, context, next) {
  try {
    return next(specifier, context)
  } catch (error) {
    if (!MISSING.has(error?.code)) throw error
    for (const source of sources(specifier)) {
      try {
        return next(source, context)
      } catch (other) {
        if (!MISSING.has(other?.code)) throw other
      }
    }
    throw error
  }
}

// What a module of a "commonjs" package may count on all the same.
function giveNames(file) {
  globalThis.require ??= createRequire(file)
  globalThis.__filename ??= file
  globalThis.__dirname ??= dirname(file)
}

registerHooks({
  resolve: first,
  load(url, context, next) {
    const found = next(url, context)
    if (found.format !== 'commonjs-typescript' || !IS_MODULE.test(String(found.source))) return found
    giveNames(fileURLToPath(url))
    return { ...found, format: 'module-typescript' }
  },
})

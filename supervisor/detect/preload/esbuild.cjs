// Loaded before a TypeScript app where Node cannot strip types and only esbuild is there: compiles each of the app's
// modules as it is required. SUPERVISOR_DETECT_ESBUILD is the folder of the app's own esbuild.
'use strict'

const { readFileSync } = require('node:fs')
const nodeModule = require('node:module')
const { extname } = require('node:path')

const { transformSync } = require(process.env.SUPERVISOR_DETECT_ESBUILD)
const loaders = { '.ts': 'ts', '.mts': 'ts', '.cts': 'ts', '.tsx': 'tsx', '.js': 'js', '.mjs': 'js' }
const plain = nodeModule._extensions['.js']

function compile(module, file) {
  if (file.includes('/node_modules/')) return plain(module, file)
  const options = { loader: loaders[extname(file)], format: 'cjs', target: 'node18', sourcefile: file }
  const { code } = transformSync(readFileSync(file, 'utf8'), { ...options, sourcemap: 'inline' })
  module._compile(code, file)
}

for (const extension of Object.keys(loaders)) nodeModule._extensions[extension] = compile

// TypeScript imports './config.js' where the file is './config.ts'.
const resolve = nodeModule._resolveFilename
nodeModule._resolveFilename = function (request, ...rest) {
  try {
    return resolve.call(this, request, ...rest)
  } catch (error) {
    const source = request.replace(/\.([cm]?)js$/, '.$1ts')
    if (!request.startsWith('.') || source === request) throw error
    return resolve.call(this, source, ...rest)
  }
}

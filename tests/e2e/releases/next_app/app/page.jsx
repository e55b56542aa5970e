"use client";

import dynamic from "next/dynamic";
import { useState } from "react";

const version = 1;

// A chunk of its own, asked for when it is shown: maybe after an update.
const Details = dynamic(() => import("./details"), { ssr: false });

export default function Page() {
  const [shown, show] = useState(false);
  return (
    <main>
      <h1>version {version}</h1>
      <button onClick={() => show(true)}>details</button>
      {shown && <Details />}
    </main>
  );
}

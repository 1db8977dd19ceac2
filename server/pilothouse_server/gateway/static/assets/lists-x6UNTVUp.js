function d(e,r,n){const t=new Set;return[...e,...r].filter(o=>!t.has(n(o))&&t.add(n(o)))}export{d as j};

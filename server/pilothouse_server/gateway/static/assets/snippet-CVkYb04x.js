import{az as p,aA as t,aB as c}from"./index-Dh_8V8Vs.js";function l(n,s,...e){var r=new c(n);p(()=>{const a=s()??null;r.ensure(a,a&&(o=>a(o,...e)))},t)}export{l as s};

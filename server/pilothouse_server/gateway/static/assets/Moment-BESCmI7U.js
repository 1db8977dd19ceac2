<<<<<<<< HEAD:server/pilothouse_server/gateway/static/assets/Moment-BESCmI7U.js
import{p as r,j as n,m as p,l as f,a as i,b as l,e as u,q as _}from"./index-BlizQIps.js";import{a as c,s as h}from"./words-BWLwevl9.js";var x=u("<span> </span>");function d(e,t){r(t,!0);var a=x(),s=_(a,!0);n((m,o)=>{p(a,"title",m),f(s,o)},[()=>c(t.moment),()=>h(t.moment)]),i(e,a),l()}export{d as M};
========
import{p as r,j as n,m as p,l as f,a as i,b as l,e as u,q as _}from"./index-CmR-qrXV.js";import{a as c,s as h}from"./words-B26h6Hps.js";var x=u("<span> </span>");function d(e,t){r(t,!0);var a=x(),s=_(a,!0);n((m,o)=>{p(a,"title",m),f(s,o)},[()=>c(t.moment),()=>h(t.moment)]),i(e,a),l()}export{d as M};
>>>>>>>> eb162bba (console: have the shared watch keep resources as bytes):server/pilothouse_server/gateway/static/assets/Moment-tS_S6lDC.js
